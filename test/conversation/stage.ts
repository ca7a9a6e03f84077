import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createRepo, uploadFiles, whoAmI } from "@huggingface/hub";
import { answerRecords, commentSettings } from "../../src/cli/comment-records.ts";
import type { Clock } from "../../src/clock.ts";
import { createCommentAnswers } from "../../src/commands/answer-comments.ts";
import { hubForum } from "../../src/commands/hub-forum.ts";
import type { ConfigurationInput } from "../../src/config/schema.ts";
import { getDelivery, insertDelivery } from "../../src/db/deliveries.ts";
import { listJobs } from "../../src/db/jobs.ts";
import { openDatabase } from "../../src/db/open-database.ts";
import { listRequestsOfJob } from "../../src/db/requests.ts";
import { listVariantsOfJob } from "../../src/db/variants.ts";
import type { Refusal } from "../../src/errors.ts";
import { commentOnDiscussion } from "../../src/hub/comment-on-discussion.ts";
import { createDiscussion } from "../../src/hub/create-discussion.ts";
import { commentsOf } from "../../src/hub/discussion.ts";
import { editComment } from "../../src/hub/edit-comment.ts";
import { getDiscussion } from "../../src/hub/get-discussion.ts";
import type { JobsContext } from "../../src/jobs/context.ts";
import { previewRequest } from "../../src/jobs/preview.ts";
import { processDelivery } from "../../src/jobs/process-delivery.ts";
import type { JobState } from "../../src/jobs/records.ts";
import { cancelJob, recordRequest, retryJob } from "../../src/jobs/service.ts";
import { announceJob } from "../../src/jobs/steps/announce.ts";
import { startLocalHub } from "../../src/local-hub/start-local-hub.ts";
import { silentLog } from "../../src/log.ts";
import { scriptedConfiguration, scriptedRunner } from "../support/scripted-bot.ts";
import { scriptedPorts, scriptedWorld, shaOf } from "../support/scripted-ports.ts";
import { makeManifest } from "../unit/web-fixtures.ts";

/** The people of the transcripts, and the tokens they write with. */
const PEOPLE = {
	owner: "hf_owner_of_the_transcripts",
	member: "hf_member_of_the_transcripts",
	visitor: "hf_visitor_of_the_transcripts",
	friend: "hf_friend_of_the_transcripts",
	"metadata-bot": "hf_other_bot_of_the_transcripts",
	"yaqa-bot": "hf_bot_of_the_transcripts",
} as const;
export type Person = keyof typeof PEOPLE;

/** One repo with one discussion, and what people and the bot write in it. */
export type Scene = {
	/** Writes a comment, lets the Hub's webhook tell of it, and lets the bot work on that. */
	says(who: Person, text: string): Promise<void>;
	/** Changes the newest comment of somebody. */
	edits(who: Person, text: string): Promise<void>;
	hides(who: Person): Promise<void>;
	/** Tells of the newest comment once more. */
	deliversAgain(): Promise<void>;
	/** Moves the newest job on, and lets the bot tell of it. */
	jobIs(state: JobState, statusText: string, refusal?: Refusal): Promise<void>;
	/** A new commit of the model. */
	pushes(): Promise<void>;
	refuses(refusal: Refusal): void;
	/** The bot's account does not see the model. */
	hidesModel(): void;
	/** Takes the whole discussion away. */
	deletes(who: Person): Promise<void>;
	locks(): void;
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
	}): Promise<Scene>;
	close(): Promise<void>;
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
	let ids = 0;
	const access = (who: Person) => ({ hubUrl: hub.url, accessToken: PEOPLE[who] });
	const bot = access("yaqa-bot");
	const botId = (await whoAmI(bot)).id;

	return {
		async scene({ namespace = "owner", configuration: overrides = {}, private: isPrivate = false } = {}) {
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
			world.setHead(repo, shaOf(`${repo} ${commit}`));
			const configuration = scriptedConfiguration(join(folder, "data"), {
				...overrides,
				watch: { namespaces: [namespace], recipes: ["gguf:q4_0", "onnx:q4"], ...overrides.watch },
			});
			let isLocked = false;
			/** The Hub has no call that locks a discussion; its answers show one. */
			const lockable: typeof fetch = async (input, init) => {
				const response = await fetch(input, init);
				if (!isLocked || (init?.method ?? "GET") !== "GET" || !String(input).includes("/discussions/")) return response;
				return Response.json({ ...((await response.json()) as object), locked: true });
			};
			const answers = createCommentAnswers({
				forum: hubForum({ hub: { ...bot, fetch: lockable }, botUserId: async () => botId }),
				context: { hubUrl: hub.url, siteUrl: "https://bot.example", botName: "yaqa-bot" },
				...commentSettings(configuration),
				...answerRecords({ database, clock, log: silentLog }),
				recordRequest: (input) => recordRequest(context, input),
				previewRequest: (input) => previewRequest(context, input),
				cancelJob: (id) => cancelJob(context, id),
				retryJob: (id) => retryJob(context, id),
				log: silentLog,
			});
			const context: JobsContext = {
				database,
				clock,
				log: silentLog,
				configuration,
				ports: { ...scriptedPorts(world), ...answers },
				runner: scriptedRunner(configuration),
				newId: () => `${(0xabc000 + ++ids).toString(16).padStart(8, "0")}-0000-4000-8000-000000000000`,
				owner: "transcripts",
				wake: async () => {},
			};
			const lines: string[] = [];
			let newest: { id: string; who: Person; text: string } | null = null;
			const firstJob = ids;

			async function deliver(action: "create" | "update", commentId: string, more: object = {}): Promise<void> {
				const id = context.newId();
				await insertDelivery(database.handle, {
					id,
					source: "hub",
					dedupeKey: id,
					receivedAt: clock.now(),
					body: {
						event: { action, scope: "discussion.comment" },
						repo: { type: "model", name: repo },
						discussion: { num },
						comment: { id: commentId, ...more },
					},
				});
				await processDelivery(context, id);
				const delivery = await getDelivery(database.handle, id);
				if (delivery?.outcome !== "accepted") lines.push(`*(${delivery?.outcome}: ${delivery?.detail})*`);
			}
			async function botComments(): Promise<{ id: string; text: string }[]> {
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
					const { id } = await commentOnDiscussion({ ...access(who), repo, num, comment: text });
					newest = { id, who, text };
					await deliver("create", id);
					await readBot();
				},
				async edits(who, text) {
					if (newest === null || newest.who !== who) throw new Error(`${who} wrote nothing last.`);
					lines.push(`**${who}** changes that to:\n${quoted(text)}`);
					await editComment({ ...access(who), repo, num, commentId: newest.id, content: text });
					await deliver("update", newest.id);
					await readBot();
				},
				async hides(who) {
					if (newest === null) throw new Error("Nothing was written.");
					lines.push(`**${who}** hides that comment.`);
					const url = `${hub.url}/api/models/${repo}/discussions/${num}/comment/${newest.id}/hide`;
					await fetch(url, { method: "POST", headers: { authorization: `Bearer ${PEOPLE[who]}` } });
					await deliver("update", newest.id, { hidden: true });
					await readBot();
				},
				async deliversAgain() {
					if (newest === null) throw new Error("Nothing was written.");
					lines.push("*The Hub tells of it once more.*");
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
							});
							await database.handle
								.updateTable("variants")
								.set({
									state: "published",
									manifest: JSON.stringify(manifest),
									target_sha: job.sourceSha,
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
				async pushes() {
					commit++;
					world.setHead(repo, shaOf(`${repo} ${commit}`));
					lines.push("*A new commit is pushed.*");
				},
				hidesModel: () => rmSync(join(world.directory, "heads", repo.replace("/", "__"))),
				refuses: (refusal) => world.setRefusal(repo, refusal),
				async deletes(who) {
					lines.push(`**${who}** deletes the discussion.`);
					const url = `${hub.url}/api/models/${repo}/discussions/${num}`;
					await fetch(url, { method: "DELETE", headers: { authorization: `Bearer ${PEOPLE[who]}` } });
				},
				locks() {
					lines.push("*The discussion is locked.*");
					isLocked = true;
				},
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
