import { whoAmI } from "@huggingface/hub";
import type { HubAccess } from "./hub-access.ts";

export type Account = { readonly id: string; readonly name: string };

/** The account that a token belongs to. It never changes, so the Hub is asked once; a failed call is made anew. */
export function ownAccount(hub: HubAccess & { readonly accessToken: string }): () => Promise<Account> {
	let known: Promise<Account> | null = null;
	return () => {
		known ??= whoAmI(hub).then(
			({ id, name }) => ({ id, name }),
			(error: unknown) => {
				known = null;
				throw error;
			},
		);
		return known;
	};
}
