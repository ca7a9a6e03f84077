import { listJobs } from "../db/jobs.ts";
import { listAdaptersOf, listBases } from "../db/settled-base.ts";
import { listPublishedRepos, setSourceVisibility, setTightened } from "../db/visibility.ts";
import type { JobsContext } from "./context.ts";
import { followName } from "./follow-name.ts";

/**
 * Lets what is published of a source, or of every source, follow its visibility and gating, and what is recorded of it
 * its name; answers how many could not.
 */
export async function followVisibility(
	context: JobsContext,
	sourceRepo: string | null,
): Promise<{ readonly failed: number }> {
	const { database, ports, clock, log } = context;
	const { handle } = database;
	// What an adapter was merged into is as visible as its base allows.
	const named = sourceRepo === null ? [null] : [sourceRepo, ...(await listAdaptersOf(handle, sourceRepo))];
	const published = (await Promise.all(named.map((name) => listPublishedRepos(handle, name)))).flat();
	const bySource = Map.groupBy(published, (one) => one.sourceRepo);
	// Nothing published, but perhaps jobs that failed, or a discussion: they follow its name too.
	if (
		sourceRepo !== null &&
		!bySource.has(sourceRepo) &&
		(await listJobs(handle, { sourceRepo, limit: 1 })).items.length > 0
	) {
		bySource.set(sourceRepo, []);
	}
	let failed = 0;
	for (const [source, repos] of bySource) {
		try {
			const bases = await listBases(handle, source);
			const seen = await ports.followVisibility({ sourceRepo: source, bases, repos });
			for (const { repo, tightened } of seen.repos) {
				if (repos.find((one) => one.repo === repo)?.tightened === tightened) continue;
				log.info("A published repo follows its source", { repo, source, tightened });
				await setTightened(handle, repo, tightened);
			}
			const now = clock.now();
			const visibility = { private: seen.private, gated: String(seen.gated), now };
			await setSourceVisibility(handle, { repo: source, ...visibility });
			const name = await followName(context, { from: source, to: seen.name });
			if (name !== source) await setSourceVisibility(handle, { repo: name, ...visibility });
		} catch (error) {
			failed++;
			log.warn("The visibility of a source could not be followed", { source, error });
		}
	}
	return { failed };
}
