import { renameSource } from "../db/rename-source.ts";
import { getKnownHead } from "../db/sweeps.ts";
import { listVariantsOfSource } from "../db/variants.ts";
import { isOfOneCommit } from "../protocol/one-commit.ts";
import type { JobsContext } from "./context.ts";
import { checkRepo } from "./watch-rules.ts";

/**
 * Lets the records of a source follow it to the name that the Hub has for it now, and the cards of what is published say
 * that name. Not where the new name is not watched: what an operator lists by a former name goes on under it. Nor while
 * a job is under way; the next sweep sees to it then. Answers the name that the records have.
 */
export async function followName(
	context: JobsContext,
	{ from, to }: { readonly from: string; readonly to: string },
): Promise<string> {
	const { database, configuration, ports, log } = context;
	if (from === to || !checkRepo(configuration.watch, to).watched) return from;
	if ((await database.transaction((tx) => renameSource(tx, { from, to }))) === "busy") return from;
	log.info("The records of a source follow it to its new name", { from, to });
	const newestSha = await getKnownHead(database.handle, to);
	const siblings = await listVariantsOfSource(database.handle, to, { publishedOnly: true });
	for (const targetRepo of new Set(siblings.map((one) => one.targetRepo))) {
		if (isOfOneCommit(targetRepo)) continue;
		try {
			await ports.refreshCard({ targetRepo, sourceRepo: to, newestSha, siblings });
		} catch (error) {
			// The Hub leads the former name's links to the new one, so that such a card is not wrong.
			log.warn("A card could not be brought up to date", { repo: targetRepo, error });
		}
	}
	return to;
}
