import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { createRepo, deleteRepo, uploadFiles } from "@huggingface/hub";
import { Client } from "pg";
import { z } from "zod";
import { endRuns } from "../../demo/end-runs.ts";
import type { ConfigurationInput } from "../../src/config/schema.ts";
import { updateRepoSettings } from "../../src/hub/update-repo-settings.ts";
import { type LocalHub, startLocalHub } from "../../src/local-hub/start-local-hub.ts";
import { type OwnPostgres, startOwnPostgres } from "../support/own-postgres.ts";
import { TINY_SOURCE } from "../support/tiny-variants.ts";
import { type Askers, startAskers } from "./askers.ts";
import { type StormBot, stormBalancer, stormBot } from "./bots.ts";
import { type SmallDisk, smallDisk } from "./small-disk.ts";
import { oneOf, seededNumbers, weatherOf } from "./weather.ts";

export type StormOptions = {
	readonly database: "PGlite" | "PostgreSQL";
	readonly seed: number;
	/** Pushes. */
	readonly events: number;
	/** SIGKILLs of a bot. */
	readonly kills: number;
	readonly say: (line: string) => void;
	/** Keep the folder for a look, and say where it is. */
	readonly keep?: boolean;
};

const Audit = z.object({
	jobs: z.number(),
	lost: z.array(z.string()),
	duplicates: z.array(z.string()),
	leaks: z.array(z.string()),
});
export type StormReport = z.infer<typeof Audit> & {
	readonly events: number;
	readonly accepted: number;
	readonly kills: number;
	readonly faults: number;
	readonly seconds: number;
};

const PUSHES_A_SOURCE = 10;
const PUSHES_A_COMMENT = 10;
const DISK_MEBIBYTES = 512;
/** What becomes of a source, by the end of its name; most are nothing but good. */
const KINDS = [
	...["good", "private", "crash", "hashes", "garbage", "deleted", "fence", "flood", "gated", "renamed", "hang"],
] as const;
/** Requests of the bot after which a kill hurts most. */
const TENDER = [
	/^POST \/api\/repos\/create/,
	/^POST \/api\/models\/bot\/staging-[^/]+\/commit/,
	/^POST \/api\/models\/bot\/[^/]+\/commit/,
	/^POST \/api\/models\/lab\/[^/]+\/discussions/,
	/^PUT \/api\/models\/bot\/[^/]+\/settings/,
] as const;
/** So long nothing may go on before what is left counts as lost. */
const SETTLE_SECONDS = 300;

type Source = { readonly repo: string; readonly kind: string; head: string | null };
type Place = {
	readonly folder: string;
	readonly hub: LocalHub;
	readonly random: () => number;
	readonly bots: StormBot[];
	readonly askers: Askers;
	readonly owner: { readonly hubUrl: string; readonly accessToken: string };
	readonly options: StormOptions;
};

function sourcesOf({ events }: StormOptions): Source[] {
	const count = Math.ceil(events / PUSHES_A_SOURCE);
	return Array.from({ length: count }, (_, index) => {
		// Every kind once among the first, then one in three.
		const kind = index < KINDS.length || index % 3 === 0 ? (KINDS[index % KINDS.length] ?? "good") : "good";
		return { repo: `lab/model${index}-${kind}`, kind, head: null };
	});
}

/** One push: another configuration file, so that it takes a run. */
async function push({ owner }: Place, source: Source, number: number, config: string): Promise<void> {
	const content = new Blob([JSON.stringify({ ...JSON.parse(config), push_of_the_test: number })]);
	const done = await uploadFiles({
		...owner,
		repo: source.repo,
		files: [{ path: "config.json", content }],
		commitTitle: `Push ${number}`,
	});
	source.head = done?.commit.oid ?? source.head;
}

/** What some owners do to their repos while the bot is at them. */
async function mistreat({ owner, hub }: Place, source: Source): Promise<void> {
	const access = { hubUrl: hub.url, accessToken: owner.accessToken, repo: source.repo };
	switch (source.kind) {
		case "deleted":
			await deleteRepo({ ...owner, repo: source.repo });
			source.head = null;
			return;
		case "renamed":
			await fetch(`${hub.url}/api/repos/move`, {
				method: "POST",
				headers: { authorization: `Bearer ${owner.accessToken}`, "content-type": "application/json" },
				body: JSON.stringify({ fromRepo: source.repo, toRepo: source.repo.replace("model", "moved"), type: "model" }),
			});
			source.head = null;
			return;
		case "gated":
			await updateRepoSettings({ ...access, settings: { gated: "manual" } });
			return;
		default:
	}
}

/** All pushes, over all sources in turn, with pauses in which the bot gets somewhere. */
async function sendAll(
	place: Place,
	sources: readonly Source[],
	config: string,
	onLastRound: () => void,
): Promise<void> {
	const { events } = place.options;
	const asked = sources.filter(({ kind }) => kind === "good");
	for (let number = 0; number < events; number++) {
		const source = sources[number % sources.length];
		if (source === undefined) continue;
		if (source.head !== null || number < sources.length) await push(place, source, number, config);
		if (number >= sources.length && number < 2 * sources.length) await mistreat(place, source);
		if (number % PUSHES_A_COMMENT === 0) place.askers.ask(asked[number % asked.length]?.repo ?? source.repo);
		if (number === events - sources.length) onLastRound();
		await sleep(place.random() * 60);
	}
}

/** Kills one bot after another, each as soon as it is up: at any moment, or right after it changed something. */
function killer(place: Place, isOver: () => boolean) {
	let kills = 0;
	let armed: { readonly at: RegExp; readonly victim: StormBot } | null = null;
	const strike = (victim: StormBot): void => {
		if (victim.kill()) kills++;
	};
	async function run(): Promise<void> {
		const { random, bots, options } = place;
		while (kills < options.kills) {
			const victim = bots[Math.floor(random() * bots.length)];
			if (victim === undefined) return;
			// Some die while they start: amid migrations, the taking over of a lock, the first look at what is due.
			if (random() < 0.4) {
				await sleep(random() * 4000);
				strike(victim);
				continue;
			}
			const patience = Date.now() + 60_000;
			while (!victim.isReady() && Date.now() < patience) await sleep(50);
			await sleep(random() * 1000);
			if (random() < 0.5 && !isOver()) {
				armed = { at: oneOf(random, TENDER), victim };
				const deadline = Date.now() + 3000;
				while (armed !== null && Date.now() < deadline) await sleep(20);
				armed = null;
			} else strike(victim);
		}
	}
	return {
		run,
		kills: () => kills,
		/** To be told of every request that the Hub has carried out. */
		onRequest(line: string): void {
			if (armed?.at.test(line) !== true) return;
			const { victim } = armed;
			armed = null;
			strike(victim);
		},
	};
}

type DatabaseUnderFire = {
	readonly url: string | null;
	readonly faults: () => number;
	/** Ends connections at random, and stops the server itself now and again, until told to stop. */
	run(isOver: () => boolean): Promise<void>;
	close(): Promise<void>;
};

async function databaseUnderFire(options: StormOptions, random: () => number): Promise<DatabaseUnderFire> {
	if (options.database === "PGlite") {
		return { url: null, faults: () => 0, run: async () => {}, close: async () => {} };
	}
	const own: OwnPostgres | null = await startOwnPostgres();
	if (own === null) throw new Error("No PostgreSQL binaries: its own server cannot be started.");
	let faults = 0;
	return {
		url: own.url,
		faults: () => faults,
		async run(isOver) {
			for (let round = 1; !isOver(); round++) {
				await sleep(500 + random() * 1000);
				if (round % 15 === 0) {
					await own.restart(random() * 2000);
					faults++;
					continue;
				}
				const client = new Client({ connectionString: own.url });
				await client.connect();
				const { rowCount } = await client.query(
					`select pg_terminate_backend(pid) from pg_stat_activity
					 where datname = current_database() and application_name like 'yaqa-bot%' and random() < 0.3`,
				);
				faults += rowCount ?? 0;
				await client.end();
			}
		},
		close: () => own.stop(),
	};
}

/** Clocks that jump forth and back, one bot's at a time. */
async function jumpClocks({ bots, random }: Place, isOver: () => boolean): Promise<number> {
	let jumps = 0;
	while (!isOver()) {
		await sleep(3000 + random() * 3000);
		const bot = bots[Math.floor(random() * bots.length)];
		bot?.setClockOffset(Math.round((random() - 0.5) * 2 * 600_000));
		jumps++;
		await sleep(1000 + random() * 3000);
		bot?.setClockOffset(0);
	}
	for (const bot of bots) bot.setClockOffset(0);
	return jumps;
}

/** Disks that are full for a moment, one bot's at a time; how often. */
async function fillDisks({ random }: Place, disks: readonly SmallDisk[], isOver: () => boolean): Promise<number> {
	let times = 0;
	while (!isOver() && disks.length > 0) {
		await sleep(8000 + random() * 8000);
		if (isOver()) break;
		const disk = oneOf(random, disks);
		disk.fill();
		times++;
		await sleep(500 + random() * 1500);
		disk.free();
	}
	return times;
}

const Jobs = z.object({ jobs: z.array(z.object({ state: z.string() })), nextCursor: z.string().nullable() });

/** Public jobs that are not at their end; one where no bot answers. */
async function activeJobs({ bots }: Place): Promise<number> {
	let cursor: string | null = "";
	let active = 0;
	while (cursor !== null) {
		const url: string = `${bots[0]?.url}/jobs${cursor === "" ? "" : `?cursor=${encodeURIComponent(cursor)}`}`;
		const response = await fetch(url, { headers: { accept: "application/json" } }).catch(() => null);
		if (response?.ok !== true) return 1;
		const page = Jobs.parse(await response.json());
		active += page.jobs.filter(({ state }) => !["done", "failed", "cancelled", "superseded"].includes(state)).length;
		cursor = page.nextCursor;
	}
	return active;
}

/** Deliveries that are not worked off, by the bots' own count; one where no bot answers. */
async function pendingDeliveries({ bots }: Place): Promise<number> {
	const response = await fetch(`${bots[0]?.url}/metrics`).catch(() => null);
	if (response?.ok !== true) return 1;
	return Number(/^yaqa_bot_deliveries\{outcome="pending"\} (\d+)$/m.exec(await response.text())?.[1] ?? 0);
}

/** Waits until everything that can be published is, no delivery waits and no job goes on; what is not by then the auditor reports. */
async function settle(place: Place, sources: readonly Source[], botToken: string): Promise<void> {
	const { hub, options } = place;
	const headers = { authorization: `Bearer ${botToken}` };
	const Manifest = z.object({ source: z.object({ revision: z.string() }) });
	let waiting = sources.filter(
		({ kind, head }) => head !== null && !["hashes", "fence", "gated", "hang"].includes(kind),
	);
	let deadline = Date.now() + SETTLE_SECONDS * 1000;
	let quiet = 0;
	let said = "";
	while (Date.now() < deadline && quiet < 3) {
		const left: Source[] = [];
		for (const source of waiting) {
			const target = `bot/${source.repo.split("/")[1]}-YAQA-W4A16`;
			const response = await fetch(`${hub.url}/${target}/resolve/main/manifests/w4a16.json`, { headers });
			const manifest = response.ok ? Manifest.safeParse(await response.json()) : null;
			if (manifest?.data?.source.revision !== source.head) left.push(source);
		}
		waiting = left;
		const active = await activeJobs(place);
		const pending = await pendingDeliveries(place);
		quiet = waiting.length === 0 && active === 0 && pending === 0 ? quiet + 1 : 0;
		const line = `${waiting.length} sources, ${active} jobs and ${pending} deliveries are under way`;
		if (quiet === 0 && line !== said) {
			options.say(line);
			deadline = Date.now() + SETTLE_SECONDS * 1000;
		}
		said = line;
		await sleep(2000);
	}
}

function configurationOf(
	hubUrl: string,
	publicUrl: string,
	python: string,
	requests: ConfigurationInput["requests"],
): ConfigurationInput {
	return {
		requests,
		server: { publicUrl },
		hub: { url: hubUrl, namespace: "bot", botUser: "bot" },
		watch: { namespaces: ["lab"], recipes: ["w4a16"], existing: true },
		runner: { python, timeoutSeconds: 20, concurrency: 4, graceSeconds: 1, attempts: 10 },
		sweep: { cron: "*/5 * * * * *" },
	};
}

function fixtureRunner(folder: string): string {
	const path = join(folder, "fixture-runner");
	writeFileSync(
		path,
		`#!/bin/sh\nexec "${process.execPath}" "${join(import.meta.dirname, "fixture-runner.mjs")}" "$@"\n`,
	);
	chmodSync(path, 0o755);
	return path;
}

function token(): string {
	return `hf_${randomBytes(16).toString("hex")}`;
}

/** The storm itself, and the independent look at what it left. */
export async function runStorm(options: StormOptions): Promise<StormReport> {
	const started = Date.now();
	const random = seededNumbers(options.seed);
	const folder = mkdtempSync(join(tmpdir(), "yaqa-storm-"));
	if (options.keep === true) options.say(`Everything is kept in ${folder}`);
	const tokens = { owner: token(), bot: token(), read: token(), secret: token(), gitHub: token() };
	const bots: StormBot[] = [];
	const disks: SmallDisk[] = [];
	let onRequest = (_line: string): void => {};
	mkdirSync(join(folder, "hub"));
	const hub = await startLocalHub({
		dataDirectory: join(folder, "hub"),
		users: [
			{ name: "owner", token: tokens.owner, role: "write", orgs: [{ name: "lab", role: "admin" }] },
			{
				name: "bot",
				token: tokens.bot,
				role: "write",
				orgs: [{ name: "lab", role: "read" }],
				moreTokens: [{ token: tokens.read, role: "read", name: "read" }],
			},
		],
		webhookRetryMilliseconds: Array.from({ length: 200 }, () => 500),
		webhookSuspendAfterFailures: 1_000_000,
		onRequest: ({ method, path }) => onRequest(`${method} ${path}`),
	});
	const balancer = await stormBalancer(() => bots);
	const askers = await startAskers(join(folder, "github"), tokens.gitHub, random);
	askers.sendTo(balancer.url);
	const database = await databaseUnderFire(options, random);
	try {
		const owner = { hubUrl: hub.url, accessToken: tokens.owner };
		const place: Place = { folder, hub, random, bots, askers, owner, options };
		const sources = sourcesOf(options);
		for (const { repo, kind } of sources) {
			await createRepo({ ...owner, repo, visibility: kind === "private" ? "private" : "public" });
			await uploadFiles({ ...owner, repo, files: [pathToFileURL(`${TINY_SOURCE}/`)] });
		}
		const config = await (await fetch(`${hub.url}/${sources[0]?.repo}/resolve/main/config.json`)).text();
		for (let index = 0; index < (options.database === "PGlite" ? 1 : 2); index++) {
			const disk = smallDisk(join(folder, `bot${index}`, "data"), DISK_MEBIBYTES);
			if (disk === null) options.say("This account cannot mount a disk: none will be full");
			else disks.push(disk);
			const bot = await stormBot({
				folder: join(folder, `bot${index}`),
				configuration: configurationOf(hub.url, balancer.url, fixtureRunner(folder), askers.requests),
				environment: {
					...askers.environment,
					YAQA_BOT_HUB_TOKEN: tokens.bot,
					YAQA_BOT_READ_TOKEN: tokens.read,
					YAQA_BOT_WEBHOOK_SECRET: tokens.secret,
					...(database.url === null ? {} : { DATABASE_URL: database.url }),
				},
			});
			bots.push(bot);
			await bot.start();
		}
		options.say(`${bots.length} bots are up after ${((Date.now() - started) / 1000).toFixed(0)} s; the storm begins`);
		let isSent = false;
		const kills = killer(place, () => isSent);
		onRequest = kills.onRequest;
		const weather = weatherOf(hub, random);
		const changing = setInterval(() => {
			weather.change();
			askers.changeWeather();
		}, 1500);
		let isLastRound = false;
		// A job that finds no room fails, and is tried again when somebody asks: here the last push of each source does.
		const filling = fillDisks(place, disks, () => isLastRound);
		const sending = sendAll(place, sources, config, () => {
			isLastRound = true;
		}).then(() => {
			isSent = true;
		});
		const killing = kills.run();
		let isOver = false;
		const trouble = [database.run(() => isOver), jumpClocks(place, () => isOver)] as const;
		await Promise.all([sending, killing]);
		isOver = true;
		clearInterval(changing);
		const [, jumps] = await Promise.all(trouble);
		const fullDisks = await filling;
		weather.clear();
		askers.clearWeather();
		await askers.settle();
		// GitHub never sends again: a bot that starts looks the issues over for what it was not told.
		for (const bot of bots) bot.kill();
		options.say(`${options.events} pushes and ${kills.kills()} kills are over; the sky is clear`);
		await hub.webhooksIdle();
		await settle(place, sources, tokens.bot);
		const audited = await audit({
			place,
			sources,
			tokens,
			databaseUrl: database.url,
			accepted: balancer.accepted(),
		});
		const faults = weather.faults() + askers.faults() + database.faults() + jumps + fullDisks;
		const counts = { events: options.events, accepted: balancer.accepted().length, kills: kills.kills(), faults };
		return { ...audited, ...counts, seconds: Math.round((Date.now() - started) / 1000) };
	} finally {
		for (const bot of bots) bot.abandon();
		await endRuns(folder);
		await askers.close();
		balancer.close();
		await hub.close();
		await database.close();
		if (options.keep !== true) for (const disk of disks) disk.unmount();
		if (options.keep !== true) rmSync(folder, { recursive: true, force: true });
	}
}

/** Public pages are read while a bot is up, the embedded database when it has let go of it. */
async function audit(request: {
	readonly place: Place;
	readonly sources: readonly Source[];
	readonly tokens: Readonly<Record<"owner" | "bot" | "read" | "secret" | "gitHub", string>>;
	readonly databaseUrl: string | null;
	readonly accepted: readonly string[];
}): Promise<z.infer<typeof Audit>> {
	const { place, tokens } = request;
	const [first] = place.bots;
	const publicPages: { where: string; text: string }[] = [];
	for (const path of ["/", "/jobs", "/deliveries", "/metrics"]) {
		for (const accept of ["text/html", "application/json"]) {
			const response = await fetch(`${first?.url}${path}`, { headers: { accept } });
			publicPages.push({ where: `${path} as ${accept}`, text: await response.text() });
		}
	}
	for (const bot of place.bots) await bot.stop();
	const path = join(place.folder, "audit.json");
	writeFileSync(
		path,
		JSON.stringify({
			database:
				request.databaseUrl === null
					? { directory: join(place.folder, "bot0", "data", "database") }
					: { url: request.databaseUrl },
			hubUrl: place.hub.url,
			ownerToken: tokens.owner,
			botToken: tokens.bot,
			botName: "bot",
			secrets: Object.values(tokens),
			accepted: request.accepted,
			sources: request.sources.map(({ repo, head }) => ({ repo, head })),
			issues: place.askers.issues(),
			publicPages,
		}),
		{ mode: 0o600 },
	);
	const { stdout } = await promisify(execFile)(process.execPath, [join(import.meta.dirname, "auditor.ts"), path], {
		maxBuffer: 64 * 1024 * 1024,
	});
	return Audit.parse(JSON.parse(stdout.trim().split("\n").at(-1) ?? ""));
}
