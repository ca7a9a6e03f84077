import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { dirname, isAbsolute, join } from "node:path";

/**
 * How far a run on this machine is kept from everything else.
 *
 * `own-account`: namespaces of its own and another account than the bot's. `namespaces`: the bot's account, which within
 * them reaches no process, no network and no file but its own. `none`: the system allows neither; the run is then held
 * by what the bot keeps out of its reach: tokens, which are in no environment and no file.
 */
export type IsolationLevel = "own-account" | "namespaces" | "none";

export type IsolationOptions = {
	/** A Python without regard to what it has installed, and the script it runs. */
	readonly python: string;
	readonly script: string;
	/** Folders that runs see nothing of but what is theirs: the data directory, homes, sockets, the bot's own program. */
	readonly hidden: readonly string[];
	/** Files and folders that every run reads. */
	readonly shown: readonly string[];
	/** Rather no run than one that is not isolated. */
	readonly required: boolean;
};

export type Isolation = {
	readonly level: IsolationLevel;
	/** Why it is no more. */
	readonly reason: string | null;
	/** A program with its arguments, in isolation. */
	readonly wrap: (
		program: readonly string[],
		places: { readonly shown: readonly string[]; readonly written: readonly string[] },
	) => readonly string[];
};

export const NO_ISOLATION: Isolation = { level: "none", reason: "It was not asked for.", wrap: (program) => program };

/** The account that owns nothing, by the number that Linux gives it everywhere. */
const NOBODY = 65_534;
const PROBE_MILLISECONDS = 30_000;

/** What must hold inside. It runs with the runner's own Python, so that one that cannot be reached there is noticed. */
function probeBeside(script: string): string {
	return readFileSync(join(dirname(script), "isolation_probe.py"), "utf8");
}

/** Every absolute path in a job's specification: what the run is to read. */
export function pathsIn(value: unknown): readonly string[] {
	if (typeof value === "string") return isAbsolute(value) ? [value] : [];
	if (typeof value !== "object" || value === null) return [];
	return Object.values(value).flatMap(pathsIn);
}

function isolationOf(options: IsolationOptions, level: "own-account" | "namespaces"): Isolation {
	return {
		level,
		reason: null,
		wrap: (program, { shown, written }) => [
			options.python,
			"-I",
			options.script,
			JSON.stringify({
				hidden: options.hidden,
				shown: [...options.shown, ...program.slice(0, 1).filter(isAbsolute), ...shown],
				read: shown,
				written,
				user: level === "own-account" ? NOBODY : null,
				namespaces: true,
			}),
			...program,
		],
	};
}

function run(command: readonly string[], environment: Readonly<Record<string, string>>): Promise<string | null> {
	return new Promise((resolve) => {
		const [program = "", ...args] = command;
		let said = "";
		const child = spawn(program, args, { env: environment, stdio: ["ignore", "ignore", "pipe"] });
		const timer = setTimeout(() => child.kill("SIGKILL"), PROBE_MILLISECONDS);
		child.stderr.on("data", (chunk: Buffer) => {
			said = `${said}${chunk.toString("utf8")}`.slice(-2000);
		});
		child.on("error", (error) => {
			clearTimeout(timer);
			resolve(error.message);
		});
		child.on("close", (code) => {
			clearTimeout(timer);
			resolve(code === 0 ? null : (said.trim().split("\n").at(-1) ?? `exit code ${code}`));
		});
	});
}

/** Tries what the system allows, from the strongest down, in `folder`. Never throws: what does not hold is not claimed. */
export async function measureIsolation(
	options: IsolationOptions,
	request: {
		readonly folder: string;
		readonly environment: Readonly<Record<string, string>>;
		/** Whether the account can be changed; tests ask for less. */
		readonly isRoot?: boolean;
	},
): Promise<Isolation> {
	if (process.platform !== "linux") return { ...NO_ISOLATION, reason: "Only Linux has namespaces." };
	const isRoot = request.isRoot ?? process.getuid?.() === 0;
	let reason: string | null = null;
	let place: string | null = null;
	try {
		const probe = probeBeside(options.script);
		await mkdir(request.folder, { recursive: true });
		place = await mkdtemp(join(request.folder, "probe-"));
		const [hidden, shown] = [join(place, "hidden"), join(place, "shown", "inside")];
		for (const folder of [hidden, shown]) await mkdir(folder, { recursive: true });
		for (const level of isRoot ? (["own-account", "namespaces"] as const) : (["namespaces"] as const)) {
			const written = join(place, level);
			await mkdir(written);
			const isolation = isolationOf({ ...options, hidden: [...options.hidden, place] }, level);
			const command = [options.python, "-I", "-c", probe, hidden, shown, written];
			const failure = await run(isolation.wrap(command, { shown: [shown], written: [written] }), request.environment);
			if (failure === null) return { ...isolationOf(options, level), reason };
			reason = failure;
		}
	} catch (error) {
		reason = error instanceof Error ? error.message : String(error);
	} finally {
		if (place !== null) await rm(place, { recursive: true, force: true }).catch(() => undefined);
	}
	return { ...NO_ISOLATION, reason };
}
