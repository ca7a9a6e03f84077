import {
	claimSweepSlot,
	forgetSweepSlots,
	getKnownHead,
	hasSweepSlot,
	releaseSweepSlot,
	setKnownHead,
} from "../db/sweeps.ts";
import { isTargetRepo } from "../db/variants.ts";
import { inTrace } from "../log.ts";
import type { WatchedHead } from "../records/source.ts";
import { type JobsContext, later } from "./context.ts";
import { followVisibility } from "./follow-visibility.ts";
import { recordRequest } from "./record-request.ts";
import { checkHours, checkRepo } from "./watch-rules.ts";

const BASELINE = "baseline:";
const KEEP_SLOTS_SECONDS = 7 * 86_400;

export type SweepReport = {
	/** Repos that were looked at. */
	readonly seen: number;
	/** Heads that no delivery had reported. */
	readonly found: number;
	readonly failed: number;
};

async function sweepHead(context: JobsContext, head: WatchedHead): Promise<"known" | "found"> {
	const { database, configuration } = context;
	if (!checkRepo(configuration.watch, head.repo).watched) return "known";
	// Outside its hours a head stays unknown, and is found when they begin.
	if (!checkHours(configuration.watch, head.repo, context.clock.now()).watched) return "known";
	const known = await getKnownHead(database.handle, head.repo);
	if (known === head.sha) return "known";
	if (await isTargetRepo(database.handle, head.repo)) return "known";
	await inTrace(context.newId(), () => requestHead(context, head, known));
	await setKnownHead(database.handle, head.repo, head.sha, context.clock.now());
	return "found";
}

async function requestHead(context: JobsContext, head: WatchedHead, known: string | null): Promise<void> {
	await recordRequest(context, {
		kind: "sweep",
		sourceRepo: head.repo,
		revision: head.sha,
		recipes: [],
		requester: null,
		replyTo: null,
		// A head that an older one was taken for meanwhile is found once more.
		dedupeKey: `sweep:${head.repo}:${known ?? ""}:${head.sha}`,
	});
}

/**
 * Looks over everything watched for pushes that no delivery reported. What a namespace holds when it is first watched is
 * taken as known, unless `watch.existing` asks for it; repos listed by name are always wanted.
 */
export async function sweep(context: JobsContext): Promise<SweepReport> {
	const { database, configuration, ports, clock, log } = context;
	const { watch } = configuration;
	let seen = 0;
	let found = 0;
	// First, so that a repo with a new name is not taken for a new one.
	let { failed } = await followVisibility(context, null);
	async function look(head: WatchedHead): Promise<void> {
		seen++;
		try {
			if ((await sweepHead(context, head)) === "found") found++;
		} catch (error) {
			failed++;
			log.warn("A watched repo could not be looked at", { repo: head.repo, error });
		}
	}
	for (const namespace of watch.namespaces) {
		const slot = `${BASELINE}${namespace}`;
		const isFirst = !watch.existing && !(await hasSweepSlot(database.handle, slot));
		try {
			for await (const head of ports.listHeads({ kind: "namespace", namespace })) {
				if (!isFirst || watch.repos.includes(head.repo)) await look(head);
				else if ((await getKnownHead(database.handle, head.repo)) === null) {
					seen++;
					await setKnownHead(database.handle, head.repo, head.sha, clock.now());
				}
			}
			if (isFirst) await claimSweepSlot(database.handle, slot, clock.now());
		} catch (error) {
			failed++;
			log.warn("A watched namespace could not be listed", { namespace, error });
		}
	}
	for (const repo of watch.repos) {
		if (watch.namespaces.includes(repo.split("/")[0] ?? "")) continue;
		try {
			for await (const head of ports.listHeads({ kind: "repo", repo })) {
				// One that was renamed is looked at under the name that its records have.
				await look(checkRepo(watch, head.repo).watched ? head : { ...head, repo });
			}
		} catch (error) {
			failed++;
			log.warn("A watched repo could not be listed", { repo, error });
		}
	}
	await forgetSweepSlots(database.handle, later(clock.now(), -KEEP_SLOTS_SECONDS), BASELINE);
	log.info("Looked over the watched repos", { seen, found, failed });
	return { seen, found, failed };
}

/** The sweep of one scheduled time: of all replicas that are triggered, one does it. `null`: somebody else does. */
export async function sweepSlot(context: JobsContext, slot: string): Promise<SweepReport | null> {
	const { database, clock } = context;
	if (!(await claimSweepSlot(database.handle, slot, clock.now()))) return null;
	try {
		return await sweep(context);
	} catch (error) {
		await releaseSweepSlot(database.handle, slot);
		throw error;
	}
}
