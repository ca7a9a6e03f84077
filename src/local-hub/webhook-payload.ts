import type { RefUpdate } from "./repo-store.ts";

type HubEventScope = "repo" | "repo.content" | "repo.config" | "discussion" | "discussion.comment";

/** Something that happened on the Hub, in the wire form of webhook payload version 3 without its `webhook` field. */
export type HubEvent = {
	readonly event: { readonly action: "create" | "delete" | "update" | "move"; readonly scope: HubEventScope };
	readonly repo: {
		readonly type: string;
		readonly name: string;
		readonly id: string;
		readonly private: boolean;
		readonly url: { readonly web: string; readonly api: string };
		readonly headSha?: string;
		readonly owner: { readonly id: string };
		readonly tags?: readonly string[];
	};
	readonly updatedRefs?: readonly RefUpdate[];
	readonly updatedConfig?: Readonly<Record<string, unknown>>;
	readonly movedTo?: { readonly name: string; readonly owner: { readonly id: string } };
	readonly discussion?: Readonly<Record<string, unknown>>;
	readonly comment?: Readonly<Record<string, unknown>>;
};

type WebhookDomain = "repo" | "discussion";

export function domainOf(scope: HubEventScope): WebhookDomain {
	return scope.startsWith("discussion") ? "discussion" : "repo";
}
