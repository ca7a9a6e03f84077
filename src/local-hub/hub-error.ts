/** The codes that stock clients read from `X-Error-Code` to choose their exception. */
type HubErrorCode = "RepoNotFound" | "RevisionNotFound" | "EntryNotFound" | "GatedRepo";

/** An answer other than success; the error middleware turns it into status, headers and `{error}`. */
export class HubError extends Error {
	override readonly name = "HubError";
	readonly status: number;
	readonly code: HubErrorCode | null;
	readonly headers: Readonly<Record<string, string>>;
	readonly body: Readonly<Record<string, unknown>>;
	constructor(
		status: number,
		message: string,
		options: {
			code?: HubErrorCode;
			headers?: Readonly<Record<string, string>>;
			/** Further fields of the JSON body, such as the `url` of a 409. */
			body?: Readonly<Record<string, unknown>>;
		} = {},
	) {
		super(message);
		this.status = status;
		this.code = options.code ?? null;
		this.headers = options.headers ?? {};
		this.body = options.body ?? {};
	}
}
