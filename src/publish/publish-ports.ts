import type { HubAccess } from "../hub/hub-access.ts";
import { ownAccount } from "../hub/own-account.ts";
import type { Recipe } from "../protocol/recipe.ts";
import { announce } from "./announce.ts";
import { followVisibility } from "./follow-visibility.ts";
import type { ManifestSigner } from "./manifest-signature.ts";
import { targetRepo } from "./names.ts";
import { publish } from "./publish.ts";
import { refreshCard } from "./refresh-card.ts";
import { republish } from "./republish.ts";
import { fetchStaged, removeStaging, stage } from "./stage.ts";
import type { SourceStatusView } from "./status-text.ts";

type PublishSettings = {
	/** With write rights on `namespace`, and nowhere else. */
	readonly publisher: HubAccess & { readonly accessToken: string };
	/** Reads sources. */
	readonly reader: HubAccess;
	/** Writes in discussions. */
	readonly discussions: HubAccess & { readonly accessToken: string };
	readonly namespace: string;
	/** Where the job pages are for people outside; `null` when they have no public address. */
	readonly publicUrl: string | null;
	/** The name people address the bot by; its account's name when not given. */
	readonly mention?: string;
	/** `null` or absent: manifests are not signed. */
	readonly sign?: ManifestSigner | null;
};

/** This folder's functions with their settings filled in, in the form that the job engine takes. */
export function createPublishPorts(settings: PublishSettings) {
	const { publisher: hub, reader, discussions, namespace, publicUrl, mention = null, sign = null } = settings;
	const account = ownAccount(discussions);
	return {
		nameTarget: (request: { readonly sourceRepo: string; readonly recipe: Recipe; readonly commit: string | null }) =>
			targetRepo({ ...request, namespace }),
		stage: (request: Omit<Parameters<typeof stage>[0], "hub" | "namespace">) => stage({ ...request, hub, namespace }),
		fetchStaged: (request: Omit<Parameters<typeof fetchStaged>[0], "hub" | "namespace">) =>
			fetchStaged({ ...request, hub, namespace }),
		removeStaging: (request: Omit<Parameters<typeof removeStaging>[0], "hub" | "namespace">) =>
			removeStaging({ ...request, hub, namespace }),
		publish: (request: Omit<Parameters<typeof publish>[0], "hub" | "reader" | "sign">) =>
			publish({ ...request, hub, reader, sign }),
		republish: (request: {
			readonly job: { readonly sourceRepo: string; readonly sourceSha: string };
			readonly targetRepo: string;
			readonly variants: readonly {
				readonly variant: { readonly id: string; readonly recipe: string };
				readonly origin: { readonly sourceSha: string };
			}[];
			readonly siblings: Parameters<typeof republish>[0]["siblings"];
		}) =>
			republish({
				...request,
				hub,
				reader,
				sign,
				variants: request.variants.map(({ variant, origin }) => ({
					id: variant.id,
					recipe: variant.recipe,
					fromSha: origin.sourceSha,
				})),
			}),
		followVisibility: (request: Omit<Parameters<typeof followVisibility>[0], "hub" | "reader">) =>
			followVisibility({ ...request, hub, reader }),
		refreshCard: (request: Omit<Parameters<typeof refreshCard>[0], "hub" | "reader">) =>
			refreshCard({ ...request, hub, reader }),
		announce: (status: SourceStatusView & { readonly discussion: number | null }) =>
			announce({ hub: discussions, account, publicUrl, mention, status }),
	};
}
