import type { PreviewRequest } from "../jobs/estimate/preview-request.ts";
import type { JobChange } from "../jobs/job-change.ts";
import type { RecordRequest } from "../jobs/ports.ts";
import type { KeyedLock } from "../keyed-lock.ts";
import type { Log } from "../log.ts";
import type { JobRecord } from "../records/job.ts";
import type { RequestRecord } from "../records/request.ts";
import type { VariantRecord } from "../records/variant.ts";
import type { Forum, Place, Thread } from "./forum.ts";
import type { Host } from "./host.ts";
import type { ReplyContext } from "./replies/reply-context.ts";

/** What becomes of requests by people without rights in the repo. */
type StrangerPolicy = "refuse" | "approval" | "public";

/** The Hub model that a command is about. `usual`: the one of the thread, which people need not name. */
export type Subject =
	| { readonly ok: true; readonly repo: string; readonly usual: boolean }
	| { readonly ok: false; readonly message: string; readonly remedy: string };

/** What commands ask of the jobs. */
export type JobRequests = {
	readonly recordRequest: RecordRequest;
	readonly previewRequest: PreviewRequest;
	readonly cancelJob: (id: string) => Promise<JobChange>;
	readonly retryJob: (id: string) => Promise<JobChange>;
};

/** What bringing an answer up to date needs. */
export type ReplyOptions = {
	readonly forum: Forum;
	/** Where the threads are; kept with a request, so that its answer is found again. */
	readonly host: Host;
	/** `named`: the model that a line names, `null` where it names none. */
	readonly subjectOf: (named: string | null, place: Place, thread: Thread) => Promise<Subject>;
	readonly context: ReplyContext;
	/** Keeps answers to one thread apart, across processes where there are several. */
	readonly alone: KeyedLock;
	readonly log: Log;
};

/** What answering a comment needs besides. */
export type AnswerOptions = ReplyOptions &
	JobRequests & {
		/** What a push to the model gives, for "quantize" without a recipe. */
		readonly defaultRecipes: (model: string) => readonly string[];
		/** Names what the bot calibrates on, as people may write it. */
		readonly calibration: string;
		/** People who may ask everywhere, by their names on this host. */
		readonly allow: readonly string[];
		/** Accounts that are never answered: other bots. */
		readonly ignore: readonly string[];
		readonly strangers: StrangerPolicy;
		/** For the public queue, in any 24 hours. */
		readonly quota: { readonly perPersonPerDay: number; readonly perDay: number };
		/** Requests by comment in the last 24 hours; `requester`: of one person, `null`: of all. */
		readonly countRequests: (requester: string | null) => Promise<number>;
		/** Counts an answer to somebody without rights; `false`: they have had enough in 24 hours, over all threads. */
		readonly claimStrangerAnswer: (comment: string, person: string) => Promise<boolean>;
		/** Who asked for a job: `null` for pushes and sweeps. */
		readonly requestersOf: (jobId: string) => Promise<readonly (string | null)[]>;
		readonly rememberReply: (request: RequestRecord, replyCommentId: string) => Promise<void>;
		/** Jobs newest first. */
		readonly statusOf: (
			repo: string,
		) => Promise<{ readonly jobs: readonly JobRecord[]; readonly variants: readonly VariantRecord[] }>;
	};
