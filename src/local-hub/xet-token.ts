import type { HubContext } from "./hub-context.ts";

const TOKEN_SECONDS = 6 * 3600;

export type XetToken = { readonly casUrl: string; readonly exp: number; readonly accessToken: string };

/**
 * Where the content-addressed store answers. Clients remember by URL what they have uploaded, so a wiped data folder
 * must show a URL they have not seen.
 */
export function casPath(context: HubContext): string {
	return `/cas-${context.instanceId}`;
}

/** What lets a client read or write one repo's or bucket's content; its id is in the address, so that no other's stands in. */
export function xetToken(context: HubContext, id: string, access: "read" | "write"): XetToken {
	return {
		casUrl: `${context.origin()}${casPath(context)}/${id}`,
		exp: Math.floor(context.clock.now().getTime() / 1000) + TOKEN_SECONDS,
		accessToken: context.signer.sign(`xet-${access}`, [id], TOKEN_SECONDS),
	};
}

export function xetHeaders(token: XetToken): Record<string, string> {
	return {
		"X-Xet-Cas-Url": token.casUrl,
		"X-Xet-Token-Expiration": String(token.exp),
		"X-Xet-Access-Token": token.accessToken,
	};
}
