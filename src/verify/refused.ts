import type { Refusal } from "../errors.ts";
import { refusal } from "./refusals.ts";

/** Ends a look at a source: it is refused. Caught where the look began, and answered as a value. */
export class Refused extends Error {
	readonly refusal: Refusal;
	constructor(value: Refusal) {
		super(value.message);
		this.refusal = value;
	}
}

export function refuse(code: Refusal["code"], message: string, remedy: string): never {
	throw new Refused(refusal(code, message, remedy));
}

export const ASK_OWNER = "The owner of the repo can fix this with a new commit; the bot looks again at every push.";
