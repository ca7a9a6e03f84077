import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chownSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "pg";

/** A PostgreSQL of the tests' own: nothing else depends on it, so that it can be stopped in the middle of things. */
export type OwnPostgres = {
	readonly url: string;
	/** Ends every connection, stays away for so long, and comes back with what was committed. */
	restart(awayMilliseconds: number): Promise<void>;
	stop(): Promise<void>;
};

export async function answers(url: string): Promise<boolean> {
	const client = new Client({ connectionString: url, connectionTimeoutMillis: 2000 });
	try {
		await client.connect();
		await client.end();
		return true;
	} catch {
		return false;
	}
}

function serverBinaries(): string | null {
	const versions = existsSync("/usr/lib/postgresql") ? readdirSync("/usr/lib/postgresql") : [];
	const folders = [
		...(process.env["PATH"] ?? "").split(":"),
		...versions.map((version) => `/usr/lib/postgresql/${version}/bin`),
	];
	return folders.find((folder) => existsSync(join(folder, "initdb")) && existsSync(join(folder, "postgres"))) ?? null;
}

export async function freePort(): Promise<number> {
	const server = createServer().listen(0, "127.0.0.1");
	await new Promise((resolve) => server.once("listening", resolve));
	const address = server.address();
	server.close();
	return typeof address === "object" && address !== null ? address.port : 0;
}

/** PostgreSQL refuses to run as root; there it gets its package's account, or nobody's. `null`: there is neither. */
function serverAccount(): { readonly uid?: number; readonly gid?: number } | null {
	if (process.getuid?.() !== 0) return {};
	const accounts = readFileSync("/etc/passwd", "utf8")
		.split("\n")
		.map((line) => line.split(":"));
	const found = ["postgres", "nobody"].flatMap((name) => accounts.filter((fields) => fields[0] === name)).at(0);
	return found === undefined ? null : { uid: Number(found[2]), gid: Number(found[3]) };
}

/** `null` where there are no binaries, or none that this account can run. */
export async function startOwnPostgres(): Promise<OwnPostgres | null> {
	const binaries = serverBinaries();
	const account = serverAccount();
	if (binaries === null || account === null) return null;
	const folder = mkdtempSync(join(tmpdir(), "yaqa-postgres-"));
	if (account.uid !== undefined && account.gid !== undefined) chownSync(folder, account.uid, account.gid);
	const made = spawnSync(join(binaries, "initdb"), ["-D", folder, "-U", "postgres", "-A", "trust", "--no-sync"], {
		cwd: folder,
		...account,
	});
	if (made.status !== 0) {
		rmSync(folder, { recursive: true, force: true });
		return null;
	}
	const port = await freePort();
	const url = `postgres://postgres@127.0.0.1:${port}/postgres`;
	async function begin(): Promise<ChildProcess> {
		const server = spawn(
			join(binaries ?? "", "postgres"),
			["-D", folder, "-p", String(port), "-h", "127.0.0.1", "-k", folder],
			{ stdio: "ignore", cwd: folder, ...account },
		);
		for (let attempt = 0; attempt < 300; attempt++) {
			if (await answers(url)) return server;
			if (server.exitCode !== null) break;
			await sleep(100);
		}
		throw new Error(`PostgreSQL in ${folder} does not answer.`);
	}
	/** SIGINT: the fast shutdown, which waits for no client. */
	async function end(server: ChildProcess): Promise<void> {
		if (server.exitCode !== null || server.signalCode !== null) return;
		server.kill("SIGINT");
		await once(server, "exit");
	}
	let server = await begin();
	return {
		url,
		async restart(awayMilliseconds) {
			await end(server);
			await sleep(awayMilliseconds);
			server = await begin();
		},
		async stop() {
			await end(server);
			rmSync(folder, { recursive: true, force: true });
		},
	};
}
