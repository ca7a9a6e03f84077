import type { Clock } from "../clock.ts";
import type { DiscussionEvent, DiscussionStore } from "./discussion-store.ts";
import { newId } from "./identifiers.ts";
import type { RepoStore } from "./repo-store.ts";

/**
 * A pull request is two files: its ref and its discussion. A kill between the two writes leaves them apart; here the
 * refs that no discussion knows are taken back, and commits and merges that the discussion missed are entered.
 */
export async function reconcilePullRequests(
	repos: RepoStore,
	discussions: DiscussionStore,
	clock: Clock,
): Promise<void> {
	for (const repo of repos.all()) {
		const pulls = discussions.of(repo).filter((discussion) => discussion.pull !== null);
		const known = new Set(pulls.map((discussion) => String(discussion.num)));
		const kept = Object.entries(repo.refs.pulls).filter(([num]) => known.has(num));
		if (kept.length < Object.keys(repo.refs.pulls).length)
			await repos.setRefs(repo, { pulls: Object.fromEntries(kept) });

		const main = await repos.commit(repo, repo.refs.branches["main"] ?? "");
		for (const discussion of pulls) {
			const head = await repos.commit(repo, repo.refs.pulls[String(discussion.num)] ?? "");
			if (discussion.pull === null || head === null) continue;
			const events: DiscussionEvent[] = [...discussion.events];
			let { status, pull } = discussion;
			const reported = events.some((event) => event.type === "commit" && event.oid === head.oid);
			if (!reported && head.oid !== pull.startedFrom)
				events.push({
					id: newId(),
					type: "commit",
					author: head.author,
					createdAt: head.date,
					subject: head.title,
					oid: head.oid,
				});
			// a merge is the last thing that happened to main, or a later request would have met the start
			if (main !== null && status !== "merged" && main.parents[1] === head.oid) {
				status = "merged";
				pull = { ...pull, mergeCommitId: main.oid };
				events.push({
					id: newId(),
					type: "status-change",
					author: main.author,
					createdAt: clock.now().toISOString(),
					status: "merged",
					reason: null,
				});
			}
			if (events.length > discussion.events.length)
				await discussions.save(repo, { ...discussion, status, pull, events });
		}
	}
}
