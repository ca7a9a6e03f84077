import { fileURLToPath } from "node:url";
import { z } from "zod";
import { parseJson } from "../parse-json.ts";
import { type ChildLimits, runLimitedChild } from "./limited-child.ts";

type OnnxKl = { readonly klNats: number; readonly sequences: number; readonly positions: number };
type OnnxKlResult =
	| { readonly ok: true; readonly kl: OnnxKl }
	/** The files are at fault: the runtime would not load or run them. */
	| { readonly ok: false; readonly reason: string };

const Answer = z.union([
	z.object({ klNats: z.number(), sequences: z.int(), positions: z.int() }),
	z.object({ error: z.string() }),
]);

const CHILD = fileURLToPath(new URL("./onnx-kl-child.ts", import.meta.url));

/** Mean KL(original ‖ ONNX file) in nats a token over the positions of `verification.safetensors`, by onnxruntime. */
export async function onnxKl(request: {
	readonly graphPath: string;
	readonly verificationPath: string;
	readonly limits: ChildLimits;
	readonly signal?: AbortSignal;
}): Promise<OnnxKlResult> {
	const { graphPath, verificationPath, limits, signal } = request;
	const answer = await runLimitedChild({
		engine: "onnxruntime",
		script: CHILD,
		arguments: [graphPath, verificationPath, String(limits.threads)],
		limits,
		...(signal === undefined ? {} : { signal }),
	});
	if (!answer.ok) return answer;
	const parsed = Answer.safeParse(parseJson(answer.line));
	if (!parsed.success) return { ok: false, reason: "onnxruntime's answer cannot be read" };
	if ("error" in parsed.data) return { ok: false, reason: parsed.data.error.slice(0, 1000) };
	return { ok: true, kl: parsed.data };
}
