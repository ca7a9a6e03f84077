import { PermanentError } from "../errors.ts";
import type { HubWriteAccess } from "../hub/hub-access.ts";
import { hubStatus } from "../hub/hub-request-error.ts";
import { validateYaml } from "../hub/validate-yaml.ts";
import type { Manifest } from "../protocol/manifest.ts";
import { isOfOneCommit } from "../protocol/one-commit.ts";
import type { CardRequest } from "./card/card-request.ts";
import { renderCard } from "./card/render-card.ts";

export const PLOT_PATH = "kl-by-size.png";
export const CARD_PATH = "README.md";

/** What stands for one commit is no other format of what stands for the newest. */
function isOfAnotherCommit(other: string, repo: string): boolean {
	return isOfOneCommit(other) && !(isOfOneCommit(repo) && other.slice(-12) === repo.slice(-12));
}

export function elsewhereOf(
	repo: string,
	siblings: readonly { readonly targetRepo: string; readonly manifest: Manifest | null }[],
): readonly { readonly repo: string; readonly manifest: Manifest }[] {
	return siblings.flatMap(({ targetRepo, manifest }) =>
		manifest === null || targetRepo === repo || isOfAnotherCommit(targetRepo, repo)
			? []
			: [{ repo: targetRepo, manifest }],
	);
}

/** The card as the Hub takes it. */
export function cardOf(
	request: { readonly hub: HubWriteAccess } & Omit<CardRequest, "hubUrl" | "plotPath">,
): Promise<string> {
	const { hub, source, ...rest } = request;
	return acceptableCard(hub, (inherited) =>
		renderCard({
			...rest,
			hubUrl: hub.hubUrl,
			source: inherited ? source : { ...source, licenseLink: null, languages: [], pipelineTag: null },
			plotPath: PLOT_PATH,
		}),
	);
}

/** The card, without what it inherits if the Hub's own check refuses that: a bad field of a source is no reason to fail. */
async function acceptableCard(hub: HubWriteAccess, render: (inherited: boolean) => string): Promise<string> {
	let errors: readonly string[] = [];
	for (const inherited of [true, false]) {
		const card = render(inherited);
		try {
			({ errors } = await validateYaml({ ...hub, content: card }));
		} catch (error) {
			// A Hub without this check has no opinion.
			if (hubStatus(error) !== 404 && hubStatus(error) !== 405) throw error;
			errors = [];
		}
		if (errors.length === 0) return card;
	}
	throw new PermanentError({
		code: "internal",
		message: `The Hub does not accept the model card's front matter: ${errors.join("; ").slice(0, 300)}`,
		remedy: "This is a bug in yaqa-bot; please report it with this message.",
	});
}
