import { randomBytes } from "node:crypto";
import { Client } from "pg";
import { answers } from "./own-postgres.ts";

/** The PostgreSQL that `DATABASE_URL` names, or one of this machine that answers; `null`: there is none. */
export async function findPostgres(): Promise<string | null> {
	const configured = process.env["DATABASE_URL"];
	if (configured !== undefined && configured !== "") return configured;
	for (const url of ["postgres://postgres@127.0.0.1:5432/postgres", "postgres://root@127.0.0.1:5432/test"]) {
		if (await answers(url)) return url;
	}
	return null;
}

/** An empty database of one's own on a server. */
export async function createTemporaryDatabase(
	server: string,
): Promise<{ readonly url: string; drop(): Promise<void> }> {
	const name = `yaqa_test_${randomBytes(6).toString("hex")}`;
	async function administer(statement: string): Promise<void> {
		const client = new Client({ connectionString: server });
		await client.connect();
		try {
			await client.query(statement);
		} finally {
			await client.end();
		}
	}
	await administer(`create database ${name}`);
	const url = new URL(server);
	url.pathname = `/${name}`;
	return { url: url.href, drop: () => administer(`drop database if exists ${name} with (force)`) };
}
