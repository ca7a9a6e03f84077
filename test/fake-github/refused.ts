/** What GitHub answers to a call that it does not carry out. */
export class Refused extends Error {
	readonly status: number;
	readonly headers: Readonly<Record<string, string>>;
	constructor(status: number, message: string, headers: Readonly<Record<string, string>> = {}) {
		super(message);
		this.status = status;
		this.headers = headers;
	}
}
