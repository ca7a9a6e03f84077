import { HubApiError } from "@huggingface/hub";

/** The Hub said no, in a way that asking again does not change. */
export class HubRequestError extends Error {
	override readonly name = "HubRequestError";
	readonly status: number;
	/** `X-Error-Code`: `RepoNotFound`, `RevisionNotFound`, `EntryNotFound`, `GatedRepo` … */
	readonly code: string | null;
	constructor(message: string, details: { status: number; code: string | null }) {
		super(message);
		this.status = details.status;
		this.code = details.code;
	}
}

/** The HTTP status of a refusal by the Hub, whether this project's calls or `@huggingface/hub` met it; else `null`. */
export function hubStatus(error: unknown): number | null {
	if (error instanceof HubRequestError) return error.status;
	if (error instanceof HubApiError) return error.statusCode;
	return null;
}
