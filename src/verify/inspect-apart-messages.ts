import type { FilesInspection, ModelTerms } from "./inspect-files.ts";
import type { SourceFile } from "./source-reader.ts";

/** What `inspect-apart.ts` and its child say to each other; both ends are this program's. */

export type InspectionRequest = {
	readonly kind: "inspect";
	readonly files: readonly SourceFile[];
	readonly terms: ModelTerms;
};
type ReadAnswer = { readonly kind: "bytes"; readonly id: number; readonly bytes: Uint8Array };
type ReadRequest = {
	readonly kind: "read";
	readonly id: number;
	readonly path: string;
	readonly start: number;
	readonly end: number;
};
type InspectionResult = { readonly kind: "result"; readonly result: FilesInspection };

function kindOf(message: unknown): unknown {
	return typeof message === "object" && message !== null && "kind" in message ? message.kind : null;
}

export function isInspectionRequest(message: unknown): message is InspectionRequest {
	return kindOf(message) === "inspect";
}
export function isReadAnswer(message: unknown): message is ReadAnswer {
	return kindOf(message) === "bytes";
}
export function isReadRequest(message: unknown): message is ReadRequest {
	return kindOf(message) === "read";
}
export function isInspectionResult(message: unknown): message is InspectionResult {
	return kindOf(message) === "result";
}
