import type { HubContext } from "./hub-context.ts";
import type { Repo } from "./repo-store.ts";

const TOKEN_SECONDS = 6 * 3600;

export type XetWriteToken = { readonly casUrl: string; readonly exp: number; readonly accessToken: string };

/**
 * Where the content-addressed store answers. Clients remember by URL what they have uploaded, so a wiped data folder
 * must show a URL they have not seen.
 */
export function casPath(context: HubContext): string {
	return `/cas-${context.instanceId}`;
}

/** What lets a client upload to one repo; the repo is in the address, so that no repo's xorbs stand in for another's. */
export function xetWriteToken(context: HubContext, repo: Repo): XetWriteToken {
	return {
		casUrl: `${context.origin()}${casPath(context)}/${repo.record.id}`,
		exp: Math.floor(context.clock.now().getTime() / 1000) + TOKEN_SECONDS,
		accessToken: context.signer.sign("xet-write", [repo.record.id], TOKEN_SECONDS),
	};
}

export function xetHeaders(token: XetWriteToken): Record<string, string> {
	return {
		"X-Xet-Cas-Url": token.casUrl,
		"X-Xet-Token-Expiration": String(token.exp),
		"X-Xet-Access-Token": token.accessToken,
	};
}
