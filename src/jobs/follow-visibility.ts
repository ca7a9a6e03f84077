import { listPublishedRepos, setSourceVisibility, setTightened } from "../db/visibility.ts";
import type { JobsContext } from "./context.ts";

/** Lets what is published of a source, or of every source, follow its visibility and gating; answers how many could not. */
export async function followVisibility(
	context: JobsContext,
	sourceRepo: string | null,
): Promise<{ readonly failed: number }> {
	const { database, ports, clock, log } = context;
	const { handle } = database;
	const published = await listPublishedRepos(handle, sourceRepo);
	let failed = 0;
	for (const [source, repos] of Map.groupBy(published, (one) => one.sourceRepo)) {
		try {
			const seen = await ports.followVisibility({ sourceRepo: source, repos });
			for (const { repo, tightened } of seen.repos) {
				if (repos.find((one) => one.repo === repo)?.tightened === tightened) continue;
				log.info("A published repo follows its source", { repo, source, tightened });
				await setTightened(handle, repo, tightened);
			}
			const { private: isPrivate, gated } = seen;
			await setSourceVisibility(handle, { repo: source, private: isPrivate, gated: String(gated), now: clock.now() });
		} catch (error) {
			failed++;
			log.warn("The visibility of a source could not be followed", { source, error });
		}
	}
	return { failed };
}
