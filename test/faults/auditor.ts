import { readFileSync } from "node:fs";
import { PGlite } from "@electric-sql/pglite";
import { Client } from "pg";
import { z } from "zod";

/**
 * Looks over a bot's database and a Hub after a storm, and knows nothing of the bot but its tables and its promises: no
 * module of it is imported here. What must have become of a source is said by the end of its name.
 *
 * `node auditor.ts FILE` with a request as JSON; prints one JSON line.
 */

const Request = z.object({
	database: z.union([z.object({ url: z.string() }), z.object({ directory: z.string() })]),
	hubUrl: z.string(),
	/** Sees everything. */
	ownerToken: z.string(),
	botToken: z.string(),
	botName: z.string(),
	/** Nothing of these may be found in public, nor the names of sources whose kind is `private`. */
	secrets: z.array(z.string()),
	/** `Webhook-Id` of every delivery that was answered with success. */
	accepted: z.array(z.string()),
	/** The sources with the commit that their main branch holds; `null`: it is gone. */
	sources: z.array(z.object({ repo: z.string(), head: z.string().nullable() })),
	/** Issues of a GitHub repo, with what people asked in them and what the bot answered. */
	issues: z.array(
		z.object({
			number: z.number(),
			comments: z.array(z.object({ id: z.number(), login: z.string(), body: z.string() })),
		}),
	),
	/** Pages of the bot as everybody reads them. */
	publicPages: z.array(z.object({ where: z.string(), text: z.string() })),
});
type Request = z.infer<typeof Request>;

/** Never published: the run broke its word. */
const NEVER = ["hashes", "fence"];
/** The owner took the source away while the bot was at it: the job ends, whatever its end. */
const ANY_END = ["deleted", "renamed", "gated"];

/** Ended at its limit of time, it is not tried again by itself: the next try would as likely hang. */
const MAY_TIME_OUT = ["hang"];
/** A job that is under way when its source gets another name keeps the one that it has; the new name may get one too. */
const NAMES: Readonly<Record<string, number>> = { renamed: 2 };
const ENDS = ["done", "failed", "superseded", "cancelled", "published", "refused", "answered"];

const Delivery = z.object({ dedupe_key: z.string(), outcome: z.string(), detail: z.string().nullable() });
const Job = z.object({
	id: z.string(),
	source_repo: z.string(),
	source_sha: z.string(),
	state: z.string(),
	status_text: z.string(),
});
const Models = z.array(z.object({ id: z.string(), private: z.boolean(), sha: z.string().nullish() }));
const Commits = z.array(z.object({ id: z.string(), title: z.string() }));
const Siblings = z.array(z.object({ path: z.string(), type: z.string() }));
const Discussions = z.object({ discussions: z.array(z.object({ num: z.number(), title: z.string() })) });
const Discussion = z.object({
	events: z.array(
		z.object({
			type: z.string(),
			author: z.object({ name: z.string() }).optional(),
			data: z
				.object({ latest: z.object({ raw: z.string() }).optional() })
				.loose()
				.optional(),
		}),
	),
});
/** Where it lies in a published repo. */
const MANIFEST = "manifests/w4a16.json";
const PublishedManifest = z.object({ job: z.string(), source: z.object({ repo: z.string(), revision: z.string() }) });

type Findings = { readonly lost: string[]; readonly duplicates: string[]; readonly leaks: string[] };

async function rowsOf(database: Request["database"]): Promise<{ deliveries: unknown; jobs: unknown }> {
	const queries = {
		deliveries: "select dedupe_key, outcome, detail from deliveries",
		jobs: "select id, source_repo, source_sha, state, status_text from jobs",
	};
	if ("url" in database) {
		const client = new Client({ connectionString: database.url });
		await client.connect();
		const deliveries = (await client.query(queries.deliveries)).rows;
		const jobs = (await client.query(queries.jobs)).rows;
		await client.end();
		return { deliveries, jobs };
	}
	const pglite = await PGlite.create(database.directory);
	const deliveries = (await pglite.query(queries.deliveries)).rows;
	const jobs = (await pglite.query(queries.jobs)).rows;
	await pglite.close();
	return { deliveries, jobs };
}

function kindOf(repo: string): string {
	return repo.split("-").at(-1) ?? "";
}

/** Deliveries and jobs against each other. */
function auditRows(request: Request, deliveries: z.infer<typeof Delivery>[], jobs: z.infer<typeof Job>[]): Findings {
	const findings: Findings = { lost: [], duplicates: [], leaks: [] };
	const known = new Map(deliveries.map((delivery) => [delivery.dedupe_key, delivery]));
	for (const id of request.accepted) {
		const delivery = [...known.values()].find((one) => one.dedupe_key.includes(id));
		if (delivery === undefined) findings.lost.push(`delivery ${id} was answered and is not there`);
		else if (delivery.outcome === "pending" || delivery.outcome === "failed") {
			findings.lost.push(`delivery ${id} is ${delivery.outcome}: ${delivery.detail}`);
		}
	}
	const commits = new Map<string, number>();
	for (const job of jobs) {
		const commit = `${job.source_repo}@${job.source_sha}`;
		// Somebody may ask by name for what a push had made superfluous: that is a job of its own, of which one runs.
		if (job.state !== "superseded") commits.set(commit, (commits.get(commit) ?? 0) + 1);
		if (!ENDS.includes(job.state)) {
			findings.lost.push(`job ${job.id} of ${commit} is ${job.state}: ${job.status_text}`);
		}
	}
	for (const [commit, count] of commits) {
		if (count > (NAMES[kindOf(commit.split("@")[0] ?? "")] ?? 1))
			findings.duplicates.push(`${count} jobs of ${commit}`);
	}
	for (const { repo, head } of request.sources) {
		const kind = kindOf(repo);
		const job = jobs.find((one) => one.source_repo === repo && one.source_sha === head);
		if (ANY_END.includes(kind) || head === null) continue;
		const wanted = NEVER.includes(kind) ? "failed" : "done";
		if (MAY_TIME_OUT.includes(kind) && job?.state === "failed" && /^It ran for more than/.test(job.status_text))
			continue;
		if (job === undefined) findings.lost.push(`${repo}@${head} has no job`);
		else if (job.state !== wanted) {
			findings.lost.push(`${repo}@${head} is ${job.state}, not ${wanted}: ${job.status_text}`);
		}
	}
	return findings;
}

/** Every comment has one answer, which says by its last line what it answers and what became of it. */
function auditIssues(request: Request, findings: Findings): void {
	for (const { number, comments } of request.issues) {
		const answers = comments.filter(({ login }) => login.endsWith("[bot]"));
		for (const { id, login, body } of comments) {
			if (login.endsWith("[bot]")) continue;
			const own = answers.filter((answer) => answer.body.includes(`"comment":"${id}"`));
			if (own.length === 0) findings.lost.push(`comment ${id} in issue ${number} has no answer: ${body}`);
			if (own.length > 1) findings.duplicates.push(`comment ${id} in issue ${number} has ${own.length} answers`);
			for (const answer of own) {
				const state = /"state":"(\w+)"/.exec(answer.body)?.[1] ?? "";
				if (!ENDS.includes(state)) findings.lost.push(`the answer to comment ${id} in issue ${number} stays ${state}`);
			}
		}
	}
}

function hubOf(request: Request) {
	return async (path: string, token: string | null): Promise<Response> =>
		await fetch(`${request.hubUrl}${path}`, token === null ? {} : { headers: { authorization: `Bearer ${token}` } });
}
type Hub = ReturnType<typeof hubOf>;

async function json<T>(schema: z.ZodType<T>, response: Response): Promise<T> {
	if (!response.ok) throw new Error(`The Hub answered ${response.status} to ${response.url}`);
	return schema.parse(await response.json());
}

/** Every repo of the bot: one for each source, one commit for each job, nothing staged. */
async function auditRepos(request: Request, hub: Hub, jobs: z.infer<typeof Job>[], findings: Findings): Promise<void> {
	const models = await json(Models, await hub(`/api/models?author=${request.botName}&limit=10000`, request.botToken));
	const bySource = new Map<string, string[]>();
	for (const { id } of models) {
		if (id.includes("/staging-")) {
			findings.duplicates.push(`${id} was left over`);
			continue;
		}
		const commits = await json(Commits, await hub(`/api/models/${id}/commits/main?limit=1000`, request.botToken));
		const jobsSeen = new Set<string>();
		for (const commit of commits) {
			const response = await hub(`/${id}/resolve/${commit.id}/${MANIFEST}`, request.botToken);
			if (!response.ok) continue;
			const manifest = PublishedManifest.parse(await response.json());
			// What somebody asked for of an older commit by name has a repo of its own, named so.
			const isOfOneCommit = id.endsWith(`-at-${manifest.source.revision.slice(0, 12)}`);
			if (!isOfOneCommit) bySource.set(manifest.source.repo, [...(bySource.get(manifest.source.repo) ?? []), id]);
			// A commit that changes the card alone keeps the manifest of the one before it; the title says which it is.
			// A card is brought up to date as often as there is something else to say, and never to say the same again.
			const isCard = commit.title.startsWith("Bring the card up to date");
			const card = isCard ? await (await hub(`/${id}/resolve/${commit.id}/README.md`, request.botToken)).text() : "";
			const key = `${manifest.job} ${commit.title} ${card}`;
			if (jobsSeen.has(key)) findings.duplicates.push(`${id} has two commits "${commit.title}" of job ${manifest.job}`);
			jobsSeen.add(key);
			const job = jobs.find((one) => one.id === manifest.job);
			if (job === undefined) findings.lost.push(`${id} holds a variant of job ${manifest.job}, which nobody knows`);
			if (NEVER.includes(kindOf(manifest.source.repo))) findings.leaks.push(`${id} was published from a run that lied`);
		}
	}
	for (const { repo, head } of request.sources) {
		const kind = kindOf(repo);
		if (head === null || NEVER.includes(kind) || ANY_END.includes(kind)) continue;
		const job = jobs.find((one) => one.source_repo === repo && one.source_sha === head);
		if (MAY_TIME_OUT.includes(kind) && job?.state === "failed") continue;
		const repos = new Set(bySource.get(repo) ?? []);
		if (repos.size !== 1) findings.lost.push(`${repo} has ${repos.size} published repos: ${[...repos].join(", ")}`);
		for (const id of repos) {
			const manifest = await json(PublishedManifest, await hub(`/${id}/resolve/main/${MANIFEST}`, request.botToken));
			if (manifest.source.revision !== head) findings.lost.push(`${id} holds ${manifest.source.revision}, not ${head}`);
		}
	}
}

/** What the bot said to an owner: in one discussion, nothing twice. */
async function auditDiscussions(request: Request, hub: Hub, findings: Findings): Promise<void> {
	for (const { repo, head } of request.sources) {
		if (head === null) continue;
		const listed = await hub(`/api/models/${repo}/discussions`, request.ownerToken);
		if (!listed.ok) continue;
		const { discussions } = Discussions.parse(await listed.json());
		if (discussions.length > 1) findings.duplicates.push(`${repo} has ${discussions.length} discussions`);
		for (const { num } of discussions) {
			const path = `/api/models/${repo}/discussions/${num}`;
			const { events } = await json(Discussion, await hub(path, request.ownerToken));
			const texts = events.flatMap(({ author, data }) =>
				author?.name === request.botName && data?.latest !== undefined ? [data.latest.raw] : [],
			);
			if (new Set(texts).size !== texts.length) findings.duplicates.push(`${repo}#${num} says something twice`);
		}
	}
}

/** Everything that somebody without an account can read. */
async function auditPublic(request: Request, hub: Hub, findings: Findings): Promise<void> {
	const hidden = [
		...request.secrets,
		...request.sources.flatMap(({ repo }) => (kindOf(repo) === "private" ? [repo.split("/")[1] ?? repo] : [])),
	];
	const look = (where: string, text: string): void => {
		for (const secret of hidden) {
			if (text.includes(secret)) findings.leaks.push(`${where} tells ${secret.replace(/^(hf_\w{4}).*/, "$1…")}`);
		}
	};
	const models = await json(Models, await hub("/api/models?limit=10000", null));
	look("the list of models", JSON.stringify(models));
	for (const { id } of models) {
		const tree = await json(Siblings, await hub(`/api/models/${id}/tree/main?recursive=true`, null));
		for (const { path, type } of tree) {
			if (type !== "file" || !/\.(md|json)$/.test(path) || path === "tokenizer.json") continue;
			look(`${id}/${path}`, await (await hub(`/${id}/resolve/main/${path}`, null)).text());
		}
		look(`commits of ${id}`, await (await hub(`/api/models/${id}/commits/main?limit=1000`, null)).text());
		const listed = await hub(`/api/models/${id}/discussions`, null);
		if (!listed.ok) continue;
		for (const { num } of Discussions.parse(await listed.json()).discussions) {
			look(`${id}#${num}`, await (await hub(`/api/models/${id}/discussions/${num}`, null)).text());
		}
	}
	for (const { where, text } of request.publicPages) look(where, text);
	for (const { number, comments } of request.issues) look(`issue ${number}`, JSON.stringify(comments));
}

const request = Request.parse(JSON.parse(readFileSync(process.argv[2] ?? "", "utf8")));
const rows = await rowsOf(request.database);
const jobs = z.array(Job).parse(rows.jobs);
const findings = auditRows(request, z.array(Delivery).parse(rows.deliveries), jobs);
const hub = hubOf(request);
await auditRepos(request, hub, jobs, findings);
await auditDiscussions(request, hub, findings);
auditIssues(request, findings);
await auditPublic(request, hub, findings);
process.stdout.write(`${JSON.stringify({ jobs: jobs.length, ...findings })}\n`);
