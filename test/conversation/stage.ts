import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createRepo, uploadFiles, whoAmI } from "@huggingface/hub";
import type { Clock } from "../../src/clock.ts";
import { createCommentHandler, createReplier } from "../../src/commands/comment-answers.ts";
import { hubForum } from "../../src/commands/hub-forum.ts";
import { hubSubject } from "../../src/commands/hub-subject.ts";
import { jobRequests } from "../../src/commands/job-requests.ts";
import { joinCommentHandlers, joinRepliers } from "../../src/commands/join-answers.ts";
import { HUB_WORDS } from "../../src/commands/replies/reply-context.ts";
import type { ConfigurationInput } from "../../src/config/schema.ts";
import { getDelivery, insertDelivery } from "../../src/db/deliveries.ts";
import { getJob, listJobs } from "../../src/db/jobs.ts";
import { openDatabase } from "../../src/db/open-database.ts";
import { listRequestsOfJob } from "../../src/db/requests.ts";
import { listVariantsOfJob } from "../../src/db/variants.ts";
import type { DeliveriesContext } from "../../src/deliveries/deliveries-context.ts";
import { processDelivery } from "../../src/deliveries/process-delivery.ts";
import type { Refusal } from "../../src/errors.ts";
import { commentOnDiscussion } from "../../src/hub/comment-on-discussion.ts";
import { createDiscussion } from "../../src/hub/create-discussion.ts";
import { commentsOf } from "../../src/hub/discussion.ts";
import { editComment } from "../../src/hub/edit-comment.ts";
import { getDiscussion } from "../../src/hub/get-discussion.ts";
import type { JobsContext } from "../../src/jobs/context.ts";
import { announceJob } from "../../src/jobs/steps/announce.ts";
import { runJobStep } from "../../src/jobs/steps/run-job-step.ts";
import { stepOf } from "../../src/jobs/transitions.ts";
import { startLocalHub } from "../../src/local-hub/start-local-hub.ts";
import { silentLog } from "../../src/log.ts";
import type { ModelShape } from "../../src/protocol/model-shape.ts";
import type { JobState } from "../../src/records/job.ts";
import { answerRecords, commentSettings } from "../../src/server/comment-records.ts";
import { issueForum, issueRepos } from "../../src/server/issue-answers.ts";
import { leasedLock } from "../../src/server/leased-lock.ts";
import { pollIssues } from "../../src/server/poll-issues.ts";
import { type FakeGitHub, startFakeGitHub } from "../fake-github/fake-github.ts";
import { NO_SECRETS } from "../support/no-secrets.ts";
import { scriptedConfiguration, scriptedRunner } from "../support/scripted-bot.ts";
import { scriptedPorts, scriptedWorld, shaOf } from "../support/scripted-ports.ts";
import { makeManifest } from "../support/web-fixtures.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** The people of the transcripts, and the tokens they write with. */
const PEOPLE = {
	owner: "hf_owner_of_the_transcripts",
	member: "hf_member_of_the_transcripts",
	visitor: "hf_visitor_of_the_transcripts",
	friend: "hf_friend_of_the_transcripts",
	"metadata-bot": "hf_other_bot_of_the_transcripts",
	"yaqa-bot": "hf_bot_of_the_transcripts",
} as const;
type Person = keyof typeof PEOPLE;

/** One repo with one discussion, and what people and the bot write in it. */
export type Scene = {
	/** Writes a comment, lets the Hub's webhook tell of it, and lets the bot work on that. */
	says(who: Person, text: string): Promise<void>;
	/** Writes a comment that nothing tells of. */
	writes(who: Person, text: string): Promise<void>;
	/** Changes the newest comment of somebody. */
	edits(who: Person, text: string): Promise<void>;
	hides(who: Person): Promise<void>;
	/** Tells of the newest comment once more. */
	deliversAgain(): Promise<void>;
	/** Moves the newest job on, and lets the bot tell of it. */
	jobIs(state: JobState, statusText: string, refusal?: Refusal): Promise<void>;
	/** A new commit of the model; `sameWeights`: one that changes other files only. */
	pushes(options?: { readonly sameWeights?: boolean }): Promise<void>;
	/** Lets the bot take the newest job's next step, and tell of it. */
	works(): Promise<void>;
	refuses(refusal: Refusal): void;
	/** The bot's account does not see the model. */
	hidesModel(): void;
	/** Takes the whole discussion away. */
	deletes(who: Person): Promise<void>;
	locks(): void;
	/** Tells of the issue's opening message. */
	opens(): Promise<void>;
	/** The bot looks the issues over by itself. */
	looksOver(): Promise<void>;
	/** What goes wrong with GitHub's next answers. */
	readonly gitHub: FakeGitHub;
	/** What was written, and what came of it, as Markdown. */
	transcript(): Promise<string>;
	readonly jobs: () => Promise<readonly string[]>;
	readonly botComments: () => Promise<readonly string[]>;
};

export type Stage = {
	scene(options?: {
		readonly namespace?: "owner" | "lab";
		readonly configuration?: ConfigurationInput;
		readonly private?: boolean;
		/** The people write in an issue of a GitHub repo instead, which its opener has just made. */
		readonly issue?: {
			readonly title: string;
			readonly body?: string;
			readonly opener?: Person;
			/** Whether the operator named the model as the one that the GitHub repo is about. */
			readonly configured?: boolean;
		};
	}): Promise<Scene>;
	close(): Promise<void>;
};

/** The demo's model. */
const SMALL: ModelShape = {
	architecture: "LlamaForCausalLM",
	hidden: 256,
	feedForward: 768,
	vocabulary: 4_096,
	layers: 6,
	contextLength: 4_096,
	attention: [{ layers: 6, keyWidth: 128, valueWidth: 128, window: null }],
	stateWidth: 0,
};

const DAY_MS = 86_400_000;

/** A local Hub, a database and the bot's own code between them; only the runner and the model's inspection are scripted. */
export async function openStage(): Promise<Stage> {
	const folder = mkdtempSync(join(tmpdir(), "yaqa-transcripts-"));
	const hub = await startLocalHub({
		dataDirectory: join(folder, "hub"),
		host: "127.0.0.1",
		port: 0,
		users: Object.entries(PEOPLE).map(([name, token]) => ({
			name,
			token,
			...(name === "member" ? { orgs: [{ name: "lab", role: "write" as const }] } : {}),
			...(name === "owner" ? { orgs: [{ name: "lab", role: "admin" as const }] } : {}),
		})),
		log: silentLog,
	});
	let days = 0;
	const clock: Clock = { now: () => new Date(Date.UTC(2026, 0, 1) + days * 2 * DAY_MS) };
	const database = await openDatabase({
		dataDirectory: join(folder, "data"),
		databaseUrl: null,
		poolSize: 2,
		clock,
		log: silentLog,
	});
	const github = await startFakeGitHub({
		folder: join(folder, "github"),
		workflowPath: join(root, "workflows", "quantize.yml"),
		path: process.env["PATH"] ?? "",
		variables: {},
		secrets: {},
	});
	const standing: Readonly<Partial<Record<Person, string>>> = { owner: "admin", member: "write", visitor: "read" };
	for (const [person, permission] of Object.entries(standing)) github.issues.permit(person, permission);
	let ids = 0;
	const access = (who: Person) => ({ hubUrl: hub.url, accessToken: PEOPLE[who] });
	const bot = access("yaqa-bot");
	const botId = (await whoAmI(bot)).id;

	return {
		async scene({ namespace = "owner", configuration: overrides = {}, private: isPrivate = false, issue } = {}) {
			days++;
			const repo = `${namespace}/model-${days}`;
			await createRepo({
				...access("owner"),
				repo: { type: "model", name: repo },
				visibility: isPrivate ? "private" : "public",
			});
			await uploadFiles({
				...access("owner"),
				repo: { type: "model", name: repo },
				files: [{ path: "README.md", content: new Blob(["x"]) }],
			});
			const { num } = await createDiscussion({ ...access("owner"), repo, title: "Variants", description: "Hello." });
			const world = scriptedWorld(join(folder, `world-${days}`));
			let commit = 1;
			const content = { weights: repo, companions: repo };
			world.setHead(repo, shaOf(`${repo} ${commit}`));
			world.setContent(shaOf(`${repo} ${commit}`), content);
			const configuration = scriptedConfiguration(
				join(folder, "data"),
				{
					...overrides,
					watch: { namespaces: [namespace], recipes: ["gguf:q4_0", "onnx:q4"], ...overrides.watch },
					requests: {
						...overrides.requests,
						github: {
							repositories: [{ repository: github.issues.repository, model: issue?.configured === true ? repo : null }],
							appId: github.appId,
							apiUrl: github.url,
							...overrides.requests?.github,
						},
					},
				},
				{ YAQA_BOT_GITHUB_APP_KEY: github.privateKey },
			);
			let isLocked = false;
			/** The Hub has no call that locks a discussion; its answers show one. */
			const lockable: typeof fetch = async (input, init) => {
				const response = await fetch(input, init);
				if (!isLocked || (init?.method ?? "GET") !== "GET" || !String(input).includes("/discussions/")) return response;
				return Response.json({ ...((await response.json()) as object), locked: true });
			};
			const siteUrl = "https://bot.example";
			const issues = issueRepos(configuration, { ...NO_SECRETS, gitHubAppKey: github.privateKey });
			const onGitHub = issues === null ? null : issueForum(configuration, issues, { hubUrl: hub.url });
			const shared = { alone: leasedLock({ database, clock, log: silentLog }), log: silentLog };
			const hubOptions = {
				forum: hubForum({ hub: { ...bot, fetch: lockable }, botUserId: async () => botId }),
				subjectOf: hubSubject,
				context: { ...HUB_WORDS, hubUrl: hub.url, siteUrl, botName: "yaqa-bot" },
				...commentSettings(configuration, "hub"),
				...shared,
			};
			const gitHubOptions =
				onGitHub === null
					? null
					: {
							...onGitHub,
							context: { ...onGitHub.context, hubUrl: hub.url, siteUrl },
							...commentSettings(configuration, "github"),
							...shared,
						};
			const jobsContext: JobsContext = {
				database,
				clock,
				log: silentLog,
				configuration,
				ports: {
					...scriptedPorts(world),
					reply: joinRepliers(createReplier(hubOptions), gitHubOptions === null ? null : createReplier(gitHubOptions)),
				},
				runner: scriptedRunner(configuration),
				newId: () => `${(0xabc000 + ++ids).toString(16).padStart(8, "0")}-0000-4000-8000-000000000000`,
				owner: "transcripts",
				wake: async () => {},
			};
			const records = {
				...answerRecords({ database, clock, limits: configuration.requests.strangerAnswers }),
				...jobRequests(jobsContext),
			};
			const context: DeliveriesContext = {
				...jobsContext,
				handleComment: joinCommentHandlers(
					createCommentHandler({ ...hubOptions, ...records }),
					gitHubOptions === null ? null : createCommentHandler({ ...gitHubOptions, ...records }),
				),
			};
			const lines: string[] = [];
			let newest: { id: string | null; who: Person; text: string } | null = null;
			const since = new Date();
			const firstJob = ids;
			const opener = issue?.opener ?? "owner";
			const named = (text: string): string => text.replaceAll("owner/model", repo);
			const issueNumber =
				issue === undefined ? null : github.issues.open(opener, named(issue.title), named(issue.body ?? ""));
			if (issue !== undefined) {
				const body = issue.body ?? "";
				lines.push(`**${opener}** opens an issue, “${issue.title}”${body === "" ? "." : `:\n${quoted(body)}`}`);
			}
			const loginOf = (who: Person): string => (who === "yaqa-bot" ? "yaqa-bot[bot]" : who);

			async function write(who: Person, text: string): Promise<string> {
				if (issueNumber !== null) return String(github.issues.comment(loginOf(who), issueNumber, named(text)));
				return (await commentOnDiscussion({ ...access(who), repo, num, comment: text })).id;
			}
			async function change(who: Person, id: string, text: string): Promise<void> {
				if (issueNumber !== null) github.issues.edit(Number(id), named(text));
				else await editComment({ ...access(who), repo, num, commentId: id, content: text });
			}

			async function deliver(action: "create" | "update", commentId: string | null, more: object = {}): Promise<void> {
				const id = context.newId();
				const comment = commentId === null ? null : Number(commentId);
				const told =
					issueNumber === null
						? {
								source: "hub" as const,
								body: {
									event: { action, scope: "discussion.comment" },
									repo: { type: "model", name: repo },
									discussion: { num },
									comment: { id: commentId, ...more },
								},
							}
						: {
								source: "github" as const,
								body: {
									event: comment === null ? "issues" : "issue_comment",
									payload: github.issues.payloadOf(
										issueNumber,
										comment,
										action === "update" ? "edited" : comment === null ? "opened" : "created",
									),
								},
							};
				await insertDelivery(database.handle, { id, dedupeKey: id, receivedAt: clock.now(), ...told });
				await work(id);
			}
			async function work(id: string): Promise<void> {
				await processDelivery(context, id);
				const delivery = await getDelivery(database.handle, id);
				if (delivery?.outcome !== "accepted") lines.push(`*(${delivery?.outcome}: ${delivery?.detail})*`);
			}
			/** On GitHub the bot marks the comment itself. */
			function readReactions(commentId: string | null): void {
				if (issueNumber === null) return;
				const key = commentId ?? "opening";
				const now = github.issues.reactionsOf(issueNumber, commentId === null ? null : Number(commentId));
				const shownNow = now.join(", ");
				if (shownNow === (reactions.get(key) ?? "")) return;
				reactions.set(key, shownNow);
				lines.push(`*The bot marks the comment: ${shownNow}.*`);
			}
			const reactions = new Map<string, string>();
			async function botComments(): Promise<{ id: string; text: string }[]> {
				if (issueNumber !== null) {
					return github.issues
						.commentsOf(issueNumber)
						.filter((comment) => comment.login === "yaqa-bot[bot]")
						.map(({ id, body }) => ({ id: String(id), text: body }));
				}
				const discussion = await getDiscussion({ ...access("owner"), repo, num });
				return commentsOf(discussion)
					.filter((comment) => comment.author?._id === botId)
					.map((comment) => ({ id: comment.id, text: comment.data.latest.raw ?? "" }));
			}
			const shown = new Map<string, string>();
			async function readBot(): Promise<void> {
				let comments: { id: string; text: string }[];
				try {
					comments = await botComments();
				} catch {
					return;
				}
				if (newest !== null) readReactions(newest.id);
				for (const { id, text } of comments) {
					const visible = text.replaceAll(/<!--[\s\S]*?-->\n?/g, "").trim();
					const before = shown.get(id);
					if (before === visible) continue;
					shown.set(id, visible);
					lines.push(`**yaqa-bot** ${before === undefined ? "answers" : "edits its answer"}:\n${quoted(visible)}`);
				}
			}
			function neutral(text: string): string {
				return (
					text
						.replaceAll(hub.url, "https://hub.example")
						.replaceAll(repo, `${namespace}/model`)
						.replaceAll(`model-${days}`, "model")
						.replaceAll(/\b00abc([0-9a-f]{3})\b/g, (_all, digits: string) => {
							const place = Number.parseInt(digits, 16) - firstJob;
							return `00abc${place.toString(16).padStart(3, "0")}`;
						})
						// Which recipes there are is another table's matter.
						.replaceAll(/Recipes: `.*`\./g, "Recipes: (all of them).")
						.replaceAll(/(For [a-z]+): [^\n]*/g, "$1: (all of them).")
						.replaceAll("\u202E", "(right-to-left mark)")
						.replaceAll(shaOf(`${repo} 1`).slice(0, 8), "c0ffee01")
						.replaceAll(shaOf(`${repo} 2`).slice(0, 8), "c0ffee02")
				);
			}
			async function jobLines(): Promise<readonly string[]> {
				const { items } = await listJobs(database.handle, { sourceRepo: repo });
				const found: string[] = [];
				for (const job of items) {
					const variants = await listVariantsOfJob(database.handle, job.id);
					const people = (await listRequestsOfJob(database.handle, job.id)).map(
						(request) => request.requester ?? request.kind,
					);
					const ending = job.cancelRequested ? ", to be cancelled" : "";
					const recipes = variants.map((variant) => variant.recipe).toSorted();
					const who = [...new Set(people)].join(", ");
					found.push(
						`${job.id.slice(0, 8)} ${job.state}${ending}, for ${who}: ${recipes.length === 0 ? "nothing" : recipes.join(", ")}`,
					);
				}
				return found.toSorted();
			}

			return {
				async says(who, text) {
					lines.push(`**${who}** writes:\n${quoted(text)}`);
					const id = await write(who, text);
					newest = { id, who, text };
					await deliver("create", id);
					await readBot();
				},
				async writes(who, text) {
					lines.push(`**${who}** writes:\n${quoted(text)}`);
					newest = { id: await write(who, text), who, text };
				},
				async edits(who, text) {
					if (newest === null || newest.id === null || newest.who !== who)
						throw new Error(`${who} wrote nothing last.`);
					lines.push(`**${who}** changes that to:\n${quoted(text)}`);
					await change(who, newest.id, text);
					await deliver("update", newest.id);
					await readBot();
				},
				async hides(who) {
					if (newest === null) throw new Error("Nothing was written.");
					lines.push(`**${who}** hides that comment.`);
					if (newest.id === null) throw new Error("An issue's opening message cannot be hidden.");
					const url = `${hub.url}/api/models/${repo}/discussions/${num}/comment/${newest.id}/hide`;
					await fetch(url, { method: "POST", headers: { authorization: `Bearer ${PEOPLE[who]}` } });
					await deliver("update", newest.id, { hidden: true });
					await readBot();
				},
				async deliversAgain() {
					if (newest === null) throw new Error("Nothing was written.");
					lines.push(`*${issue === undefined ? "The Hub" : "GitHub"} tells of it once more.*`);
					await deliver("create", newest.id);
					await readBot();
				},
				async jobIs(state, statusText, refusal) {
					const [job] = (await listJobs(database.handle, { sourceRepo: repo })).items;
					if (job === undefined) throw new Error("There is no job.");
					await database.handle
						.updateTable("jobs")
						.set({
							state,
							status_text: statusText,
							stop_as: null,
							refusal: refusal === undefined ? null : JSON.stringify(refusal),
						})
						.where("id", "=", job.id)
						.execute();
					if (state === "done") {
						for (const variant of await listVariantsOfJob(database.handle, job.id)) {
							const manifest = makeManifest({
								recipe: variant.recipe,
								repo,
								sha: job.sourceSha,
								kl: 0.021,
								bytes: 6_100_000,
								shape: SMALL,
							});
							await database.handle
								.updateTable("variants")
								.set({
									state: "published",
									manifest: JSON.stringify(manifest),
									target_sha: job.sourceSha,
									current: true,
									published_at: clock.now(),
								})
								.where("id", "=", variant.id)
								.execute();
						}
					}
					lines.push(`*The job is ${state}.*`);
					await announceJob(context, job.id);
					await readBot();
				},
				async pushes({ sameWeights = false } = {}) {
					commit++;
					world.setHead(repo, shaOf(`${repo} ${commit}`));
					if (sameWeights) world.setContent(shaOf(`${repo} ${commit}`), content);
					lines.push(`*A new commit is pushed${sameWeights ? ", with the same weights" : ""}.*`);
				},
				async works() {
					const [job] = (await listJobs(database.handle, { sourceRepo: repo })).items;
					const step = job === undefined ? null : stepOf(job.state);
					if (job === undefined || step === null) throw new Error("There is nothing to do.");
					await runJobStep(context, step, job.id);
					const after = await getJob(database.handle, job.id);
					lines.push(`*The job is ${after?.state}.*`);
					await announceJob(context, job.id);
					await readBot();
				},
				hidesModel: () => rmSync(join(world.directory, "heads", repo.replace("/", "__"))),
				refuses: (refusal) => world.setRefusal(repo, refusal),
				async deletes(who) {
					lines.push(`**${who}** deletes the ${issue === undefined ? "discussion" : "issue"}.`);
					if (issueNumber !== null) {
						github.issues.delete(issueNumber);
						return;
					}
					const url = `${hub.url}/api/models/${repo}/discussions/${num}`;
					await fetch(url, { method: "DELETE", headers: { authorization: `Bearer ${PEOPLE[who]}` } });
				},
				locks() {
					lines.push(`*The ${issue === undefined ? "discussion" : "issue"} is locked.*`);
					if (issueNumber !== null) github.issues.lock(issueNumber);
					isLocked = true;
				},
				async opens() {
					newest = { id: null, who: opener, text: issue?.body ?? "" };
					await deliver("create", null);
					await readBot();
				},
				async looksOver() {
					const [gitHubRepo] = issues?.access.values() ?? [];
					if (gitHubRepo === undefined) throw new Error("No GitHub repo is configured.");
					lines.push("*The bot looks the issues over by itself.*");
					const found: string[] = [];
					await pollIssues({
						github: gitHubRepo,
						botName: "yaqa-bot",
						since,
						clock,
						storeDelivery: async (delivery) => {
							const id = context.newId();
							const inserted = await insertDelivery(database.handle, { id, ...delivery });
							if (inserted.stored) found.push(id);
							return { id: inserted.id, duplicate: !inserted.stored };
						},
					});
					for (const id of found) await work(id);
					await readBot();
				},
				gitHub: github,
				jobs: jobLines,
				botComments: async () => (await botComments()).map((comment) => comment.text),
				async transcript() {
					const jobs = await jobLines();
					lines.push(jobs.length === 0 ? "No job." : `Jobs:\n${jobs.map((job) => `- ${job}`).join("\n")}`);
					return neutral(lines.join("\n\n"));
				},
			};
		},
		async close() {
			await database.close();
			await github.close();
			await hub.close();
			rmSync(folder, { recursive: true, force: true });
		},
	};
}

function quoted(text: string): string {
	const shown = text.length > 4000 ? `${text.slice(0, 60)}… (${text.length} characters)` : text;
	return shown
		.split("\n")
		.map((line) => (line === "" ? ">" : `> ${line}`))
		.join("\n");
}
