import { assertNever } from "../errors.ts";
import type { CommentHandler, RecordRequest, Replier, RequestOutcome } from "../jobs/ports.ts";
import type { PreviewRequest } from "../jobs/preview.ts";
import type { JobRecord, RequestRecord, VariantRecord } from "../jobs/records.ts";
import type { JobChange } from "../jobs/service.ts";
import { isFinished, transition } from "../jobs/transitions.ts";
import type { Log } from "../log.ts";
import { parseRecipe, type Recipe } from "../protocol/recipe.ts";
import { readAnswer, type Section, writeAnswer } from "./answer-text.ts";
import type { Author, Comment, Forum, Place, Thread } from "./forum.ts";
import { type Host, placeOf, requesterName } from "./host.ts";
import { createKeyedLock, type KeyedLock } from "./keyed-lock.ts";
import { type ParsedCommand, parseComment } from "./parse-comment.ts";
import {
	contextFor,
	MISREAD,
	type ReplyContext,
	renderApproved,
	renderChanges,
	renderExplanation,
	renderHelp,
	renderHelpHint,
	renderInvalid,
	renderMayNot,
	renderNoJob,
	renderNotPermitted,
	renderPing,
	renderPlan,
	renderQuota,
	renderRefusal,
	renderRequest,
	renderStatus,
	renderWaiting,
	renderWhichJob,
} from "./render-reply.ts";
import { type ReplyTrailer, readTrailer } from "./reply-trailer.ts";

/** What becomes of requests by people without rights in the repo. */
type StrangerPolicy = "refuse" | "approval" | "public";

/** The Hub model that a command is about. `usual`: the one of the thread, which people need not name. */
export type Subject =
	| { readonly ok: true; readonly repo: string; readonly usual: boolean }
	| { readonly ok: false; readonly message: string; readonly remedy: string };

export type AnswerOptions = {
	readonly forum: Forum;
	/** Where the threads are; kept with a request, so that its answer is found again. */
	readonly host: Host;
	/** `named`: the model that a line names, `null` where it names none. */
	readonly subjectOf: (named: string | null, place: Place, thread: Thread) => Promise<Subject>;
	readonly context: ReplyContext;
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
	readonly recordRequest: RecordRequest;
	readonly previewRequest: PreviewRequest;
	readonly cancelJob: (id: string) => Promise<JobChange>;
	readonly retryJob: (id: string) => Promise<JobChange>;
	/** Who asked for a job: `null` for pushes and sweeps. */
	readonly requestersOf: (jobId: string) => Promise<readonly (string | null)[]>;
	readonly rememberReply: (request: RequestRecord, replyCommentId: string) => Promise<void>;
	/** Jobs newest first. */
	readonly statusOf: (
		repo: string,
	) => Promise<{ readonly jobs: readonly JobRecord[]; readonly variants: readonly VariantRecord[] }>;
	/** Keeps answers to one thread apart across processes; the default does within this one. */
	readonly alone?: KeyedLock;
	readonly log: Log;
};

/** Strangers are answered this often in a thread; after that the bot is silent, whatever they write. */
const MAXIMUM_ANSWERS_TO_STRANGERS = 10;
const MAXIMUM_INVALID = 5;
const MAXIMUM_KEYS = 60;

type Answer = { readonly id: string; readonly sections: readonly Section[]; readonly trailer: ReplyTrailer };

/** The bot's own answers in a thread. */
function answersOf(thread: Thread, botId: string): readonly Answer[] {
	return thread.comments.flatMap((comment) => {
		if (comment.author?.id !== botId) return [];
		const answer = readAnswer(comment.text);
		return answer === null ? [] : [{ id: comment.id, ...answer }];
	});
}

function sameName(one: string, other: string): boolean {
	return one.toLowerCase() === other.toLowerCase();
}

async function isTrusted(place: Place, author: Author, options: AnswerOptions): Promise<boolean> {
	if (author.trusted === true || options.allow.some((name) => sameName(name, author.name))) return true;
	return author.trusted === null && (await options.forum.isTrusted(place, author));
}

/** Accounts that are programs by their host's word, by their name's usual ending, or by the operator's list. */
function isRobot(author: Author, options: AnswerOptions): boolean {
	if (options.allow.some((name) => sameName(name, author.name))) return false;
	return (
		author.robot || /[-_.[]bots?\]?$/i.test(author.name) || options.ignore.some((name) => sameName(name, author.name))
	);
}

function parsedRecipes(texts: readonly string[]): readonly Recipe[] {
	return texts.flatMap((text) => {
		const parsed = parseRecipe(text);
		return parsed.ok ? [parsed.recipe] : [];
	});
}

function requestStateOf(outcome: RequestOutcome): {
	readonly request: RequestRecord;
	readonly job: JobRecord | null;
	readonly variants: readonly VariantRecord[];
} {
	switch (outcome.kind) {
		case "planned":
			return { request: outcome.request, job: outcome.job, variants: outcome.variants };
		case "published":
			return { request: outcome.request, job: null, variants: outcome.variants };
		case "refused":
			return { request: { ...outcome.request, refusal: outcome.refusal }, job: null, variants: [] };
	}
}

function stateWord(state: { readonly request: RequestRecord; readonly job: JobRecord | null }): string {
	if (state.request.refusal !== null) return "refused";
	return state.job?.state ?? "published";
}

/** What one command came to. */
type Effect = {
	readonly section: Section;
	/** For the operator's page. */
	readonly told: string;
	readonly request: RequestRecord | null;
	/** For the trailer; `null` leaves it as it is. */
	readonly state: string | null;
	readonly waits: boolean;
};

type Situation = {
	readonly place: Place;
	readonly thread: Thread;
	/** The model that the thread is about. */
	readonly usual: string | null;
	readonly comment: Comment;
	readonly author: Author;
	readonly botId: string;
	readonly trusted: boolean;
	/** Whether somebody with rights lets this run for the author. */
	readonly approved: boolean;
	readonly replyCommentId: string | null;
};

/** With the model that the command is about. */
type Subjected = Situation & { readonly source: string; readonly context: ReplyContext };

/** Most comments never name the bot; for them nothing is looked up. */
function isNamed(text: string, botName: string): boolean {
	return text.toLowerCase().includes(botName.toLowerCase());
}

/**
 * Answers what people write to the bot.
 *
 * `handleComment` reads the thread again (the webhook's text is a hint), judges the author's rights by the host's own
 * flags at this moment, runs what is new in the comment and writes one answer. `reply` brings that answer up to date
 * when a job goes on. Both find the answer by its trailer, so that running again edits it.
 */
export function createCommentAnswers(options: AnswerOptions): {
	readonly handleComment: CommentHandler;
	readonly reply: Replier;
} {
	const { forum, host, context, log } = options;
	const alone = options.alone ?? createKeyedLock();

	async function write(
		place: Place,
		before: Answer | null,
		text: string,
		beforeText: string | null,
	): Promise<string | null> {
		if (before !== null && beforeText === text) return before.id;
		const written = before === null ? await forum.post(place, text) : await forum.edit(place, before.id, text);
		if (written === null) log.warn("An answer could not be written", { ...place });
		return written?.id ?? null;
	}

	function lockName(place: Place): string {
		return `${host === "hub" ? "" : `${host} `}${place.repo}#${place.thread}`;
	}

	async function quantize(command: ParsedCommand & { kind: "quantize" }, at: Subjected): Promise<Effect> {
		const { context } = at;
		const effect = (text: string, told: string, more: Partial<Effect> = {}): Effect => ({
			section: { key: command.key, request: null, lasting: false, text },
			told: `quantize: ${told}`,
			request: null,
			state: null,
			waits: false,
			...more,
		});
		const refused = optionRefusal(command, options.calibration);
		if (refused !== null) return effect(renderRefusal(refused), "refused: an option", { state: "refused" });
		if (!at.trusted && !at.approved) {
			switch (options.strangers) {
				case "refuse":
					return effect(renderNotPermitted(context, at.author.name), "refused: no rights in the repo", {
						state: "refused",
					});
				case "approval":
					return effect(renderWaiting(context, at.author.name, command), "waits for approval", {
						state: "waiting",
						waits: true,
					});
				case "public": {
					const own = await options.countRequests(requesterName(host, at.author.name));
					const all = await options.countRequests(null);
					const { perPersonPerDay, perDay } = options.quota;
					if (own >= perPersonPerDay || all >= perDay) {
						const over =
							own >= perPersonPerDay ? { asked: own, limit: perPersonPerDay } : { asked: all, limit: perDay };
						return effect(renderQuota(context, over), "refused: quota", { state: "refused" });
					}
					break;
				}
				default:
					return assertNever(options.strangers);
			}
		}
		const outcome = await options.recordRequest({
			kind: "comment",
			sourceRepo: at.source,
			...(command.revision === null ? {} : { revision: command.revision }),
			recipes: parsedRecipes(command.recipes),
			requester: requesterName(host, at.author.name),
			replyTo: {
				...(host === "github" ? { github: at.place.repo } : {}),
				discussion: at.place.thread,
				commentId: at.comment.id,
				replyCommentId: at.replyCommentId,
			},
			// An edited comment that asks for something else is another request; the same wish again is not.
			dedupeKey: `${host === "hub" ? "" : `${host}:`}comment:${at.place.repo}:${at.place.thread}:${at.comment.id}:${command.key}`,
		});
		const state = requestStateOf(outcome);
		return effect(renderRequest(context, state), stateWord(state), {
			section: {
				key: command.key,
				request: state.request.id,
				lasting: true,
				text: renderRequest(context, state),
			},
			request: state.request,
			state: stateWord(state),
		});
	}

	async function plan(command: ParsedCommand & { kind: "plan" }, at: Subjected): Promise<string> {
		const { context } = at;
		const refused = optionRefusal(command, options.calibration);
		if (refused !== null) return renderRefusal(refused);
		const preview = await options.previewRequest({
			sourceRepo: at.source,
			...(command.revision === null ? {} : { revision: command.revision }),
			recipes: parsedRecipes(command.recipes),
		});
		if (!preview.ok) return renderRefusal(preview.refusal);
		const asked = [
			"quantize",
			...command.recipes,
			...(command.revision === null ? [] : [`revision=${command.revision}`]),
		];
		return renderPlan(context, preview, asked.join(" "));
	}

	async function mayCancel(job: JobRecord, at: Subjected): Promise<boolean> {
		if (at.trusted) return true;
		const requesters = await options.requestersOf(job.id);
		return (
			requesters.length > 0 &&
			requesters.every((name) => name !== null && sameName(name, requesterName(host, at.author.name)))
		);
	}

	async function cancel(command: ParsedCommand & { kind: "cancel" }, at: Subjected): Promise<string> {
		const { context } = at;
		const { jobs } = await options.statusOf(at.source);
		const going = jobs.filter((job) => !isFinished(job.state));
		const { target } = command;
		const meant = target === null || target === "all" ? going : jobs.filter((job) => job.id.startsWith(target));
		if (meant.length === 0) {
			const what =
				target === null || target === "all"
					? `Nothing of ${context.subject} is going on.`
					: `I know no such job of ${context.subject}.`;
			return renderNoJob(context, what);
		}
		const allowed: JobRecord[] = [];
		for (const job of meant) if (await mayCancel(job, at)) allowed.push(job);
		if (allowed.length === 0) return renderMayNot(context, "cancel", at.author.name);
		if (allowed.length > 1 && target !== "all") return renderWhichJob(context, "cancel", allowed);
		const changes = [];
		for (const job of allowed) {
			const change = await options.cancelJob(job.id);
			changes.push({ job, problem: change.ok ? null : change.reason });
		}
		return renderChanges(context, "Cancelling", changes);
	}

	async function retry(command: ParsedCommand & { kind: "retry" }, at: Subjected): Promise<string> {
		const { context } = at;
		if (!at.trusted) return renderMayNot(context, "retry", at.author.name);
		const { jobs } = await options.statusOf(at.source);
		const { target } = command;
		const [job, ...others] =
			target === null
				? jobs.filter((one) => transition(one.state, "retry") !== null).slice(0, 1)
				: jobs.filter((one) => one.id.startsWith(target));
		if (job === undefined) {
			return renderNoJob(
				context,
				target === null
					? `No job of ${context.subject} failed or was cancelled.`
					: `I know no such job of ${context.subject}.`,
			);
		}
		if (others.length > 0) return renderWhichJob(context, "retry", [job, ...others]);
		const change = await options.retryJob(job.id);
		return renderChanges(context, "Trying again:", [{ job, problem: change.ok ? null : change.reason }]);
	}

	async function explain(command: ParsedCommand & { kind: "explain" }, at: Subjected): Promise<string> {
		const { context } = at;
		const { jobs, variants } = await options.statusOf(at.source);
		const { target } = command;
		const variant = target === null ? null : (variants.find((one) => one.recipe === target) ?? null);
		const job =
			variant !== null
				? jobs.find((one) => one.id === variant.jobId)
				: target === null
					? jobs[0]
					: jobs.find((one) => one.id.startsWith(target));
		if (job === undefined) {
			return renderNoJob(
				context,
				target === null
					? `Nothing was made of ${context.subject} yet.`
					: `I know no such job or variant of ${context.subject}.`,
			);
		}
		const shown = variant === null ? variants.filter((one) => one.jobId === job.id) : [variant];
		return renderExplanation(context, job, shown);
	}

	/** Runs what waits in other answers of this thread, in the name of those who asked. */
	async function approve(at: Situation): Promise<string> {
		if (!at.trusted) return renderMayNot(context, "approve", at.author.name);
		let approved = 0;
		for (const answer of answersOf(at.thread, at.botId)) {
			if (answer.trailer.waiting.length === 0) continue;
			const comment = at.thread.comments.find((one) => one.id === answer.trailer.comment);
			if (comment?.author === undefined || comment.author === null) continue;
			// What was shown as waiting is what runs: a line that was changed since has another key.
			const waiting = commandsOf(comment, at.usual).filter((command) => answer.trailer.waiting.includes(command.key));
			if (waiting.length === 0) continue;
			const { author } = comment;
			await runAndWrite(waiting, answer, { ...at, comment, author, trusted: false, approved: true });
			approved += waiting.length;
		}
		return renderApproved(context, approved);
	}

	async function run(command: ParsedCommand, unsubjected: Situation): Promise<Effect> {
		const passing = (text: string, told: string): Effect => ({
			section: { key: command.key, request: null, lasting: false, text },
			told,
			request: null,
			state: null,
			waits: false,
		});
		const lasting = (text: string): Effect => ({
			...passing(text, command.kind),
			section: { key: command.key, request: null, lasting: true, text },
		});
		switch (command.kind) {
			case "approve":
				return lasting(await approve(unsubjected));
			case "help":
				return passing(renderHelp(context), "help");
			case "ping":
				return passing(renderPing(context), "ping");
			case "invalid":
				return passing(renderInvalid(context, command), MISUNDERSTOOD);
			default:
				break;
		}
		const subject = await options.subjectOf(command.model, unsubjected.place, unsubjected.thread);
		if (!subject.ok) return { ...passing(renderRefusal(subject), "refused: the model"), state: "refused" };
		const at: Subjected = { ...unsubjected, source: subject.repo, context: contextFor(context, subject) };
		switch (command.kind) {
			case "quantize":
				return await quantize(command, at);
			case "plan":
				return passing(await plan(command, at), "plan");
			case "status":
				return passing(renderStatus(at.context, { repo: at.source, ...(await options.statusOf(at.source)) }), "status");
			case "explain":
				return passing(await explain(command, at), "explain");
			case "cancel":
				return lasting(await cancel(command, at));
			case "retry":
				return lasting(await retry(command, at));
			default:
				return assertNever(command);
		}
	}

	/** The model that the thread is about, for reading short forms and for leaving out its name; `null`: none. */
	async function usualSubject(place: Place, thread: Thread): Promise<string | null> {
		const subject = await options.subjectOf(null, place, thread);
		return subject.ok ? subject.repo : null;
	}

	function commandsOf(comment: Comment, usual: string | null): readonly ParsedCommand[] {
		const commands = parseComment(comment.text, {
			botName: context.botName,
			defaultRecipes: (model) => options.defaultRecipes(model ?? usual ?? ""),
		});
		// The same line twice is one wish.
		const unique = [...new Map(commands.map((command) => [command.key, command])).values()];
		let misread = 0;
		return unique.filter((command) => command.kind !== "invalid" || ++misread <= MAXIMUM_INVALID);
	}

	/** Runs `commands` one after the other and writes the answer, with what stood in it and still counts. */
	async function runAndWrite(
		commands: readonly ParsedCommand[],
		before: Answer | null,
		at: Situation,
	): Promise<{ readonly told: string; readonly written: boolean; readonly sign: "done" | "refused" | null }> {
		const effects: Effect[] = [];
		for (const command of commands) effects.push(await run(command, at));
		const present = new Set(commandsOf(at.comment, at.usual).map((command) => command.key));
		const ranNow = new Set(commands.map((command) => command.key));
		const kept = (before?.sections ?? []).filter(
			(section) => !ranNow.has(section.key) && (section.lasting || present.has(section.key)),
		);
		const sections = [...kept, ...effects.map((effect) => effect.section)];
		const misread = sections.filter((section) => section.text.startsWith(MISREAD)).map((section) => section.text);
		if (misread.length > 0 && !sections.some((section) => section.key === HINT)) {
			sections.push({ key: HINT, request: null, lasting: false, text: renderHelpHint(context, misread) });
		}
		const request = effects.findLast((effect) => effect.request !== null)?.request ?? null;
		const waiting = [
			...(before?.trailer.waiting ?? []).filter((key) => !ranNow.has(key) && present.has(key)),
			...effects.filter((effect) => effect.waits).map((effect) => effect.section.key),
		];
		const trailer: ReplyTrailer = {
			v: 1,
			comment: at.comment.id,
			request: request?.id ?? before?.trailer.request ?? null,
			state: effects.findLast((effect) => effect.state !== null)?.state ?? before?.trailer.state ?? "answered",
			ran: [...new Set([...(before?.trailer.ran ?? []), ...ranNow])].slice(-MAXIMUM_KEYS),
			waiting: waiting.slice(-MAXIMUM_KEYS),
		};
		const id = await write(at.place, before, writeAnswer({ sections, trailer }), null);
		if (id !== null) {
			for (const effect of effects) {
				if (effect.request !== null && effect.request.replyTo?.replyCommentId !== id) {
					await options.rememberReply(effect.request, id);
				}
			}
		}
		return {
			told: effects.map((effect) => effect.told).join(", "),
			written: id !== null,
			sign: signOf(effects),
		};
	}

	return {
		handleComment: (hint) =>
			alone(lockName({ repo: hint.repo, thread: hint.discussion }), async () => {
				const ignored = (detail: string) => ({ outcome: "ignored" as const, detail });
				const place: Place = { repo: hint.repo, thread: hint.discussion };
				const botId = await forum.botId();
				if (hint.authorId === botId) return ignored("the bot's own comment");
				const thread = await forum.read(place);
				if (thread === null) return ignored("the discussion cannot be read");
				const wanted = hint.commentId?.toLowerCase() ?? null;
				const comment =
					wanted === null
						? thread.comments[0]
						: thread.comments.find((candidate) => candidate.id.toLowerCase() === wanted);
				if (comment === undefined) return ignored("the comment is hidden or gone");
				const { author } = comment;
				if (author === null) return ignored("the comment's author is gone");
				if (author.id === botId) return ignored("the bot's own comment");
				if (isRobot(author, options)) return ignored("another bot's comment");
				if (readTrailer(comment.text) !== null) return ignored("a copy of an answer");
				const usual = isNamed(comment.text, context.botName) ? await usualSubject(place, thread) : null;
				const commands = commandsOf(comment, usual);
				if (commands.length === 0) return ignored("not addressed to the bot");
				const answers = answersOf(thread, botId);
				const before = answers.find((answer) => answer.trailer.comment === comment.id) ?? null;
				const ran = new Set(before?.trailer.ran);
				const fresh = commands.filter((command) => !ran.has(command.key));
				if (fresh.length === 0) return ignored("answered already");
				// Nothing is done that nobody could be told of.
				if (thread.locked) return ignored("the discussion is locked");
				const trusted = await isTrusted(place, author, options);
				if (!trusted && before === null) {
					const own = new Set(thread.comments.filter((one) => one.author?.id === author.id).map((one) => one.id));
					const given = answers.filter((answer) => own.has(answer.trailer.comment)).length;
					if (given >= MAXIMUM_ANSWERS_TO_STRANGERS) return ignored("enough answers to one person here");
				}
				await forum.acknowledge(place, comment.id, "seen");
				const { told, written, sign } = await runAndWrite(fresh, before, {
					place,
					thread,
					usual,
					comment,
					author,
					botId,
					trusted,
					approved: false,
					replyCommentId: before?.id ?? null,
				});
				if (sign !== null) await forum.acknowledge(place, comment.id, sign);
				log.info("A comment was answered", { ...place, delivery: hint.deliveryId, told });
				return { outcome: "accepted", detail: written ? told : `${told}; the answer could not be written` };
			}),

		reply: ({ request, job, variants }) => {
			const replyTo = request.replyTo;
			if (replyTo === null || replyTo.commentId === null) return Promise.resolve({ replyCommentId: null });
			const commentId = replyTo.commentId;
			const place = placeOf(replyTo, request.sourceRepo);
			return alone(lockName(place), async () => {
				const thread = await forum.read(place);
				if (thread === null) return { replyCommentId: replyTo.replyCommentId };
				const answer = answersOf(thread, await forum.botId()).find((one) => one.trailer.comment === commentId) ?? null;
				const state = { request, job, variants };
				const usual = (await usualSubject(place, thread)) === request.sourceRepo;
				const text = renderRequest(contextFor(context, { repo: request.sourceRepo, usual }), state);
				const own = answer?.sections.find((section) => section.request === request.id);
				const section: Section = {
					// An answer that was lost is written anew; the request's own number stands for the command's key.
					key: own?.key ?? request.id.replaceAll("-", "").slice(0, 12),
					request: request.id,
					lasting: true,
					text,
				};
				const others = answer?.sections ?? [];
				const sections = own === undefined ? [...others, section] : others.map((one) => (one === own ? section : one));
				const trailer: ReplyTrailer = {
					v: 1,
					comment: commentId,
					request: answer?.trailer.request ?? request.id,
					state: answer === null || answer.trailer.request === request.id ? stateWord(state) : answer.trailer.state,
					ran: answer?.trailer.ran ?? [],
					waiting: answer?.trailer.waiting ?? [],
				};
				const before = thread.comments.find((comment) => comment.id === answer?.id)?.text ?? null;
				const id = await write(place, answer, writeAnswer({ sections, trailer }), before);
				if (id !== null && job?.state === "done") await forum.acknowledge(place, commentId, "done");
				if (id !== null && job?.state === "failed") await forum.acknowledge(place, commentId, "refused");
				return { replyCommentId: id ?? replyTo.replyCommentId };
			});
		},
	};
}

/** How a comment is marked once it is answered; `null`: a job goes on. */
function signOf(effects: readonly Effect[]): "done" | "refused" | null {
	if (effects.some((effect) => effect.state === "refused" || effect.told === MISUNDERSTOOD)) return "refused";
	return effects.every((effect) => effect.state === null || effect.state === "published") ? "done" : null;
}

const MISUNDERSTOOD = "not understood";

/** The line that stands after what was not understood. */
const HINT = "hint0help";

/** Options that the bot understands and does not grant, with who decides. */
function optionRefusal(
	command: ParsedCommand & { kind: "quantize" | "plan" },
	calibration: string,
): { readonly message: string; readonly remedy: string } | null {
	if (command.private) {
		return {
			message: "Variants are as public as the model they are made of: of a public model I make public ones only.",
			remedy: "Leave out the word private. Variants of a private repo are private without it.",
		};
	}
	if (command.calibration !== null && command.calibration !== "default" && command.calibration !== calibration) {
		return {
			message: `This bot calibrates on ${calibration === "self" ? "texts sampled from the model itself" : "texts that its operator chose"}, and no other choice is open to comments.`,
			remedy: `Leave out calibration=… or write calibration=default; the operator of this bot decides with quantization.calibration.`,
		};
	}
	return null;
}
