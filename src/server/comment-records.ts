import type { Clock } from "../clock.ts";
import type { AnswerOptions } from "../commands/answer-options.ts";
import type { Host } from "../commands/host.ts";
import type { Configuration } from "../config/schema.ts";
import type { Database } from "../db/database.ts";
import { listJobs } from "../db/jobs.ts";
import { countCommentRequests, listRequestsOfJob, setReplyComment } from "../db/requests.ts";
import { claimStrangerAnswer } from "../db/stranger-answers.ts";
import { listVariantsOfSource } from "../db/variants.ts";
import { recipesOfRules } from "../jobs/watch-rules.ts";

const DAY_SECONDS = 86_400;
const JOBS_SHOWN = 50;

/** Who may ask for what, as the configuration says. */
export function commentSettings(
	configuration: Configuration,
	host: Host,
): Pick<AnswerOptions, "defaultRecipes" | "calibration" | "allow" | "ignore" | "strangers" | "quota" | "host"> {
	const { requests, watch, quantization } = configuration;
	return {
		host,
		defaultRecipes: (repo) => recipesOfRules(watch, repo).map((recipe) => recipe.canonical),
		calibration: quantization.calibration.kind,
		allow: host === "hub" ? requests.allow : requests.github.allow,
		ignore: requests.ignore,
		strangers: requests.strangers,
		quota: requests.quota,
	};
}

/** What answering reads and keeps in the database. */
export function answerRecords(options: {
	readonly database: Database;
	readonly clock: Clock;
	readonly limits: Configuration["requests"]["strangerAnswers"];
}): Pick<AnswerOptions, "claimStrangerAnswer" | "countRequests" | "requestersOf" | "rememberReply" | "statusOf"> {
	const { database, clock, limits } = options;
	const { handle } = database;
	return {
		claimStrangerAnswer: (comment, person) => {
			const now = clock.now();
			return claimStrangerAnswer(database, {
				comment,
				person,
				now,
				since: new Date(now.getTime() - DAY_SECONDS * 1000),
				perPerson: limits.perPersonPerDay,
				all: limits.perDay,
			});
		},
		countRequests: (requester) =>
			countCommentRequests(handle, { requester, since: new Date(clock.now().getTime() - DAY_SECONDS * 1000) }),
		requestersOf: async (jobId) =>
			(await listRequestsOfJob(handle, jobId)).map((request) =>
				request.kind === "comment" ? request.requester : null,
			),
		rememberReply: (request, id) => setReplyComment(handle, request, id),
		statusOf: async (sourceRepo) => ({
			jobs: (await listJobs(handle, { sourceRepo, limit: JOBS_SHOWN })).items,
			variants: await listVariantsOfSource(handle, sourceRepo),
		}),
	};
}
