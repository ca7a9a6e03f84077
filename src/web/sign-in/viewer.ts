import type { Asker } from "../../commands/job-control.ts";

/** Somebody who is signed in. */
export type Viewer = Asker & {
	/** What the forms of their pages carry. */
	readonly formToken: string;
	/** `false`: the Hub could not be asked what they may read, so that nothing private is shown. */
	readonly isCertain: boolean;
};

/** Whether the operator named this account: by its number, which stays, or by its name. */
export function isNamedOperator(
	operators: readonly string[],
	account: { readonly subject: string; readonly name: string },
): boolean {
	return operators.some((one) =>
		/^[0-9a-f]{24}$/.test(one) ? one === account.subject : one.toLowerCase() === account.name.toLowerCase(),
	);
}
