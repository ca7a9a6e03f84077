import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { Agent, get } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { z } from "zod";
import { createTemporaryDatabase, findPostgres } from "../support/temporary-database.ts";
import { BUSY_MODEL } from "./site-seed.ts";

/**
 * `npm run bench:site -- [--json] [--variants 1000,100000] [--database PGlite|PostgreSQL] [--requests N] [--pages PART]`: how long each
 * page and each API call takes with eight clients that ask for nothing else, on every database and at every size, and
 * what 200 who follow one job do to the others. One JSON line a page with `--json`; the last line judges. Ratios count:
 * other programs of the machine slow all pages alike, and the help page, which reads nothing, is the measure.
 */
const { values } = parseArgs({
	options: {
		json: { type: "boolean", default: false },
		variants: { type: "string", default: "1000,100000" },
		database: { type: "string" },
		requests: { type: "string", default: "160" },
		watchers: { type: "string", default: "200" },
		pages: { type: "string", default: "" },
	},
});
const CLIENTS = 8;
const requests = Number(values.requests);
const watcherCount = Number(values.watchers);
const sizes = values.variants.split(",").map(Number);
if (sizes.some((size) => !Number.isInteger(size) || size < 100))
	throw new Error("--variants takes numbers from 100 on.");

/** The measure of the others. */
const HELP = "/help";
const MOST_GROWTH = 2;
const MOST_OF_HELP = 10;
const MOST_BESIDE_WATCHERS = 3;

type Site = {
	readonly variants: number;
	readonly url: string;
	readonly liveJob: string;
	readonly variant: string;
	readonly process: ChildProcess;
};

function addresses({ liveJob, variant }: Site): readonly string[] {
	return [
		HELP,
		"/about",
		"/",
		"/?sort=kl",
		"/?q=model+7b",
		"/?q=4bit+llama",
		"/?q=nothinglikethis",
		"/?family=Rare",
		"/?fits=8+GB",
		"/?container=onnx&bits=8&license=mit",
		"/variants",
		"/variants?sort=size",
		"/variants?q=Model-7",
		"/variants?q=nothinglikethis",
		"/variants?container=onnx&bits=3",
		`/m/${BUSY_MODEL}`,
		`/m/${BUSY_MODEL}?fits=8+GB&context=8k`,
		`/v/${variant}`,
		"/jobs",
		`/jobs/${liveJob}`,
		`/jobs/${liveJob}/log`,
		"/deliveries",
		"/feed.atom",
		"/sitemap.xml",
	].filter((address) => address.includes(values.pages));
}

const agent = new Agent({ keepAlive: true, maxSockets: CLIENTS });

/** Milliseconds until the last byte. */
function take(url: string, accept: string): Promise<number> {
	return new Promise((resolve, reject) => {
		const started = performance.now();
		get(url, { agent, headers: { Accept: accept, "Accept-Encoding": "gzip" } }, (response) => {
			response.on("end", () => {
				if (response.statusCode === 200) resolve(performance.now() - started);
				else reject(new Error(`${url} answered ${response.statusCode}.`));
			});
			response.on("error", reject);
			response.resume();
		}).on("error", reject);
	});
}

type Figures = { readonly p50: number; readonly p95: number };

function quantile(numbers: readonly number[], share: number): number {
	const sorted = numbers.toSorted((one, other) => one - other);
	return sorted[Math.floor((sorted.length - 1) * share)] ?? 0;
}

/** Each the median of the rounds': a moment in which another program had the machine is one round's, not the page's. */
function figuresOf(rounds: readonly (readonly number[])[]): Figures {
	const at = (share: number): number =>
		Math.round(
			quantile(
				rounds.map((round) => quantile(round, share)),
				0.5,
			) * 100,
		) / 100;
	return { p50: at(0.5), p95: at(0.95) };
}

/** Rounds in which what is compared takes turns, so that what else the machine does slows all of it alike. */
const ROUNDS = 10;

async function batch(url: string, accept: string, count: number): Promise<readonly number[]> {
	const taken: number[] = [];
	let left = count;
	const client = async (): Promise<void> => {
		while (left-- > 0) taken.push(await take(url, accept));
	};
	await Promise.all(Array.from({ length: CLIENTS }, client));
	return taken;
}

/** Of each address, in turns; every client asks for one of them at a time. */
async function measure(urls: readonly string[], accept: string): Promise<readonly Figures[]> {
	const rounds: (readonly number[])[][] = urls.map(() => []);
	for (const url of urls) await batch(url, accept, CLIENTS);
	for (let round = 0; round < ROUNDS; round++) {
		for (const [index, url] of urls.entries()) {
			rounds[index]?.push(await batch(url, accept, Math.ceil(requests / ROUNDS)));
		}
	}
	return rounds.map(figuresOf);
}

async function answerOf<T>(child: ChildProcess, schema: z.ZodType<T>): Promise<T> {
	const [message] = (await once(child, "message")) as [unknown];
	return schema.parse(message);
}

async function startServer(directory: string, variants: number, databaseUrl: string | null): Promise<Site> {
	const child = fork(join(import.meta.dirname, "site-server.ts"), [directory, String(variants), databaseUrl ?? ""], {
		stdio: ["ignore", "pipe", "inherit", "ipc"],
	});
	let text = "";
	for await (const chunk of child.stdout ?? []) {
		text += String(chunk);
		if (text.includes("\n")) break;
	}
	const told = z.object({ url: z.string(), liveJob: z.string(), variant: z.string() }).parse(JSON.parse(text));
	return { ...told, variants, process: child };
}

/** `help`: the help page of the same site, in turns with the page. */
type Row = {
	readonly database: string;
	readonly variants: number;
	readonly page: string;
	readonly accept: "html" | "json";
	readonly help: Figures;
} & Figures;

function tell(row: object, text: string): void {
	process.stdout.write(values.json ? `${JSON.stringify(row)}\n` : `${text}\n`);
}

/** Every page at every size, the sizes in turns. */
async function measureSites(database: string, sites: readonly Site[]): Promise<readonly Row[]> {
	const rows: Row[] = [];
	const [first] = sites;
	if (first === undefined) return rows;
	for (const [number, address] of addresses(first).entries()) {
		for (const accept of ["html", "json"] as const) {
			if (accept === "json" && /\.(atom|xml)$/.test(address)) continue;
			const type = accept === "html" ? "text/html" : "application/json";
			const urls = sites.flatMap((site) => [site.url + HELP, `${site.url}${addresses(site)[number]}`]);
			const figures = await measure(urls, type);
			for (const [index, site] of sites.entries()) {
				const [help, own] = [figures[2 * index], figures[2 * index + 1]];
				if (help === undefined || own === undefined) continue;
				const page = address.replace(first.liveJob, "ID").replace(first.variant, "ID");
				const row = { database, variants: site.variants, page, accept, ...own, help };
				rows.push(row);
				tell(
					row,
					`${database} ${site.variants} ${page} ${accept}: p50 ${own.p50} ms, p95 ${own.p95} ms (help ${help.p50}, ${help.p95})`,
				);
			}
		}
	}
	return rows;
}

/** What is asked for while people follow a job. */
const OTHERS = [HELP, "/", "/variants", `/m/${BUSY_MODEL}`, "/jobs"];

type Watched = {
	readonly database: string;
	readonly watchers: number;
	readonly reached: number;
	readonly pages: readonly { readonly page: string; readonly without: Figures; readonly with: Figures }[];
};

async function measureWatched(database: string, site: Site): Promise<Watched> {
	const without = new Map<string, Figures>();
	for (const page of OTHERS) {
		const [figures] = await measure([site.url + page], "text/html");
		if (figures !== undefined) without.set(page, figures);
	}
	const stream = `${site.url}/jobs/${site.liveJob}/events`;
	const child = fork(join(import.meta.dirname, "site-watchers.ts"), [stream, String(watcherCount)]);
	await answerOf(child, z.object({ watching: z.literal(watcherCount) }));
	const told = answerOf(site.process, z.object({ first: z.int(), last: z.int() }));
	site.process.send({ events: 200 });
	const pages = [];
	for (const page of OTHERS) {
		const [figures] = await measure([site.url + page], "text/html");
		const before = without.get(page);
		if (before !== undefined && figures !== undefined) pages.push({ page, without: before, with: figures });
	}
	child.send(await told);
	const { reached } = await answerOf(child, z.object({ reached: z.int() }));
	child.disconnect();
	await once(child, "exit");
	const watched = { database, watchers: watcherCount, reached, pages };
	tell(
		watched,
		`${database}: ${reached} of ${watcherCount} who follow a job got every event; ${pages.map((one) => `${one.page} p95 ${one.without.p95} → ${one.with.p95} ms`).join(", ")}`,
	);
	return watched;
}

async function withDatabase<T>(
	server: string | null,
	use: (directory: string, url: string | null) => Promise<T>,
): Promise<T> {
	const directory = mkdtempSync(join(tmpdir(), "yaqa-site-"));
	try {
		if (server === null) return await use(directory, null);
		const { url, drop } = await createTemporaryDatabase(server);
		try {
			return await use(directory, url);
		} finally {
			await drop();
		}
	} finally {
		rmSync(directory, { recursive: true, force: true });
	}
}

const rows: Row[] = [];
const watched: Watched[] = [];
const server = await findPostgres();
const databases = (["PGlite", "PostgreSQL"] as const).filter(
	(name) => values.database === undefined || values.database === name,
);
for (const database of databases) {
	if (database === "PostgreSQL" && server === null) {
		process.stderr.write("skipped: no PostgreSQL\n");
		continue;
	}
	rows.push(...(await onEverySize(database, sizes, [])));
}

/** Opens a site of each size, one within the other, so that all are there at once; then measures them. */
async function onEverySize(
	database: "PGlite" | "PostgreSQL",
	left: readonly number[],
	sites: readonly Site[],
): Promise<readonly Row[]> {
	const [variants, ...others] = left;
	if (variants === undefined) {
		const measured = await measureSites(database, sites);
		const last = sites.at(-1);
		if (last !== undefined) watched.push(await measureWatched(database, last));
		return measured;
	}
	return await withDatabase(database === "PGlite" ? null : server, async (directory, url) => {
		const site = await startServer(directory, variants, url);
		try {
			return await onEverySize(database, others, [...sites, site]);
		} finally {
			site.process.disconnect();
			await once(site.process, "exit");
		}
	});
}

const faults: string[] = [];
for (const row of rows) {
	if (row.p95 > MOST_OF_HELP * row.help.p95) {
		faults.push(
			`${row.database} ${row.variants} ${row.page} ${row.accept}: ${(row.p95 / row.help.p95).toFixed(1)} times the help page`,
		);
	}
	const first = rows.find(
		(other) =>
			other.database === row.database &&
			other.accept === row.accept &&
			other.page === row.page &&
			other.variants === sizes[0],
	);
	if (first !== undefined && row.p95 > MOST_GROWTH * first.p95) {
		faults.push(
			`${row.database} ${row.page} ${row.accept}: ${(row.p95 / first.p95).toFixed(1)} times what it is at ${sizes[0]} variants`,
		);
	}
}
for (const { database, watchers, reached, pages } of watched) {
	if (reached !== watchers) faults.push(`${database}: ${watchers - reached} of ${watchers} did not get every event`);
	for (const { page, without, with: beside } of pages) {
		if (beside.p95 > MOST_BESIDE_WATCHERS * without.p95) {
			faults.push(`${database} ${page}: ${(beside.p95 / without.p95).toFixed(1)} times as long beside watchers`);
		}
	}
}
tell({ ok: faults.length === 0, faults }, faults.length === 0 ? "ok" : faults.join("\n"));
process.exitCode = faults.length === 0 ? 0 : 1;
