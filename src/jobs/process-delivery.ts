import { leaseDelivery, settleDelivery } from "../db/deliveries.ts";
import { hintRun } from "../db/jobs.ts";
import { getStatusDiscussion } from "../db/status-discussions.ts";
import { isTargetRepo } from "../db/variants.ts";
import { assertNever, PermanentError, RetryableError } from "../errors.ts";
import type { DeliveryOutcome, DeliveryRecord } from "../records/delivery.ts";
import { type JobsContext, later } from "./context.ts";
import { type GitHubEvent, readGitHubEvent } from "./github-event.ts";
import { readHubEvent } from "./hub-event.ts";
import { recordRequest } from "./service.ts";
import { judgeHours, judgeRepo } from "./watch-rules.ts";

const LEASE_SECONDS = 300;
const MAXIMUM_ATTEMPTS = 12;
const MAXIMUM_BUG_ATTEMPTS = 4;
const MAXIMUM_DELAY_SECONDS = 600;

type Settlement = { readonly outcome: Exclude<DeliveryOutcome, "pending">; readonly detail: string };

async function handlePush(context: JobsContext, delivery: DeliveryRecord, repo: string): Promise<Settlement> {
	const verdict = judgeRepo(context.configuration.watch, repo);
	if (!verdict.watched) return { outcome: "ignored", detail: verdict.reason };
	const hours = judgeHours(context.configuration.watch, repo, context.clock.now());
	if (!hours.watched) return { outcome: "ignored", detail: hours.reason };
	if (await isTargetRepo(context.database.handle, repo)) {
		return { outcome: "ignored", detail: "It is one of our own quantized repos." };
	}
	// The delivery only says where to look: the branch's head is read from the Hub, so that old or shuffled deliveries
	// cannot bring back an older commit.
	const outcome = await recordRequest(context, {
		kind: "push",
		sourceRepo: repo,
		recipes: [],
		requester: null,
		replyTo: null,
		dedupeKey: `delivery:${delivery.id}`,
	});
	switch (outcome.kind) {
		case "planned":
			return {
				outcome: "accepted",
				detail: `${outcome.created ? "Planned" : "Joined"} job ${outcome.job.id}.`,
			};
		case "published":
			return { outcome: "accepted", detail: "Everything is published already." };
		case "refused":
			return { outcome: "ignored", detail: `${outcome.refusal.code}: ${outcome.refusal.message}` };
		default:
			return assertNever(outcome);
	}
}

/** A run has news: it is looked at now instead of with the next poll. */
async function handleRunEvent(context: JobsContext, event: Extract<GitHubEvent, { kind: "run" }>): Promise<Settlement> {
	const { configuration, database, clock, runner } = context;
	const { kind, githubActions } = configuration.runner;
	if (kind !== "github-actions" || event.repository.toLowerCase() !== githubActions.repository?.toLowerCase()) {
		return { outcome: "ignored", detail: "It is not about the repo that runs jobs." };
	}
	const { job, fence } = event.attempt;
	const now = clock.now();
	if (!(await hintRun(database.handle, { job, fence, now }))) {
		return { outcome: "ignored", detail: `Attempt ${fence} of job ${job} is not under way.` };
	}
	await context.wake({ kind: "step", step: "poll", jobId: job, runner: runner.name }, now);
	return { outcome: "accepted", detail: `Looked at the run of job ${job}.` };
}

async function handleGitHub(context: JobsContext, delivery: DeliveryRecord): Promise<Settlement> {
	const event = readGitHubEvent(delivery.body);
	switch (event.kind) {
		case "ignored":
			return { outcome: "ignored", detail: event.reason };
		case "run":
			return await handleRunEvent(context, event);
		case "comment": {
			const { comments, github } = context.configuration.requests;
			if (!comments) return { outcome: "ignored", detail: "Comments are switched off." };
			const name = event.repository.toLowerCase();
			const known = github.repositories.find(({ repository }) => repository.toLowerCase() === name);
			if (known === undefined) return { outcome: "ignored", detail: "It is not among requests.github.repositories." };
			return await context.ports.handleComment({
				deliveryId: delivery.id,
				host: "github",
				repo: known.repository,
				discussion: event.issue,
				commentId: event.comment === null ? null : String(event.comment),
			});
		}
		default:
			return assertNever(event);
	}
}

async function handleHub(context: JobsContext, delivery: DeliveryRecord): Promise<Settlement> {
	const { configuration, ports } = context;
	const event = readHubEvent(delivery.body, configuration.watch.ref);
	switch (event.kind) {
		case "ignored":
			return { outcome: "ignored", detail: event.reason };
		case "push":
			return await handlePush(context, delivery, event.repo);
		case "comment": {
			if (!configuration.requests.comments) return { outcome: "ignored", detail: "Comments are switched off." };
			const verdict = judgeRepo(configuration.watch, event.repo);
			if (!verdict.watched) return { outcome: "ignored", detail: verdict.reason };
			return await ports.handleComment({
				deliveryId: delivery.id,
				repo: event.repo,
				discussion: event.discussion,
				commentId: event.commentId,
				authorId: event.authorId,
			});
		}
		case "discussion": {
			// Whoever opens the closed status discussion again wants the bot back: the head is looked at like a push.
			const { discussion } = await getStatusDiscussion(context.database.handle, event.repo);
			if (discussion !== event.discussion) return { outcome: "ignored", detail: "It is not the bot's discussion." };
			return await handlePush(context, delivery, event.repo);
		}
		default:
			return assertNever(event);
	}
}

/** Works on a stored delivery until it is settled; a failure leaves it pending for another try. */
export async function processDelivery(context: JobsContext, id: string): Promise<void> {
	const { database, clock, log } = context;
	const owner = `${context.owner}:${context.newId()}`;
	const now = clock.now();
	const leased = await leaseDelivery(database.handle, { id, owner, now, until: later(now, LEASE_SECONDS) });
	if (leased === null) return;
	try {
		const settlement = await (leased.delivery.source === "hub" ? handleHub : handleGitHub)(context, leased.delivery);
		await settleDelivery(database.handle, { id, owner, ...settlement, nextAttemptAt: clock.now() });
	} catch (error) {
		const isKnown = error instanceof RetryableError;
		const limit = isKnown ? MAXIMUM_ATTEMPTS : MAXIMUM_BUG_ATTEMPTS;
		const reason = error instanceof Error ? error.message : String(error);
		if (!isKnown) log.error("A delivery could not be worked on", { delivery: id, error });
		const isOver = error instanceof PermanentError || leased.attempts >= limit;
		const asked = isKnown ? error.retryAfterSeconds : null;
		const seconds = asked ?? Math.min(MAXIMUM_DELAY_SECONDS, 2 ** leased.attempts);
		const nextAttemptAt = later(clock.now(), seconds);
		await settleDelivery(database.handle, {
			id,
			owner,
			outcome: isOver ? "failed" : "pending",
			detail: isOver ? reason : `Attempt ${leased.attempts}: ${reason}`,
			nextAttemptAt,
		});
		if (!isOver) await context.wake({ kind: "delivery", deliveryId: id }, nextAttemptAt);
	}
}
