import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runProgram } from "./environments.ts";
import { type ClientFinding, failed, notApplicable, passed } from "./finding.ts";

const IDENTITY = {
	GIT_AUTHOR_NAME: "Ann",
	GIT_AUTHOR_EMAIL: "ann@example.invalid",
	GIT_COMMITTER_NAME: "Ann",
	GIT_COMMITTER_EMAIL: "ann@example.invalid",
	GIT_TERMINAL_PROMPT: "0",
};

/** Clone and push with the git that is installed; with git-lfs where that is, too. */
export async function gitClient(hubUrl: string, home: string): Promise<readonly ClientFinding[]> {
	const findings: ClientFinding[] = [];
	const run = async (args: readonly string[], directory = home) =>
		await runProgram("git", ["-C", directory, ...args], { environment: { HOME: home, ...IDENTITY } });
	const step = async (name: string, work: () => Promise<string | null>): Promise<void> => {
		const problem = await work();
		findings.push(problem === null ? passed(name) : failed(name, problem));
	};
	const all = async (directory: string, ...commands: readonly (readonly string[])[]): Promise<string | null> => {
		for (const args of commands) {
			const { code, err } = await run(args, directory);
			if (code !== 0) return `git ${args.join(" ")}: ${err}`;
		}
		return null;
	};
	const made = await fetch(`${hubUrl}/api/repos/create`, {
		method: "POST",
		headers: { authorization: "Bearer hf_ann", "content-type": "application/json" },
		body: JSON.stringify({ name: "by-git", organization: "lab" }),
	});
	if (!made.ok) return [failed("create", await made.text())];
	const address = `${hubUrl.replace("://", "://ann:hf_ann@")}/lab/by-git`;
	const work = join(home, "work");
	await step("git clone", () => all(home, ["clone", address, "work"]));
	await step("git push", async () => {
		writeFileSync(join(work, "words.txt"), "words\n");
		return await all(work, ["add", "-A"], ["commit", "-m", "Words"], ["push", "origin", "main"]);
	});
	await step("git push of a branch and a tag", () =>
		all(work, ["checkout", "-b", "side"], ["tag", "v1"], ["push", "origin", "side", "v1"], ["checkout", "main"]),
	);
	await step("what was pushed is downloaded", async () => {
		const text = await (await fetch(`${hubUrl}/lab/by-git/resolve/v1/words.txt`)).text();
		return text === "words\n" ? null : text;
	});
	if ((await run(["lfs", "version"])).code !== 0) {
		return [...findings, notApplicable("git-lfs", "git-lfs is not installed here")];
	}
	const weights = randomBytes(12_000_000);
	await step("git push with LFS", async () => {
		writeFileSync(join(work, "model.safetensors"), weights);
		const install = ["lfs", "install", "--local"];
		return await all(work, install, ["add", "-A"], ["commit", "-m", "Weights"], ["push", "origin", "main"]);
	});
	await step("git clone with LFS", async () => {
		const problem = await all(home, [
			"-c",
			"filter.lfs.smudge=git-lfs smudge -- %f",
			"-c",
			"filter.lfs.process=git-lfs filter-process",
			"-c",
			"filter.lfs.required=true",
			"clone",
			address,
			"again",
		]);
		if (problem !== null) return problem;
		return readFileSync(join(home, "again", "model.safetensors")).equals(weights) ? null : "other bytes came back";
	});
	await step("git lfs lock and unlock", () =>
		all(work, ["lfs", "lock", "model.safetensors"], ["lfs", "locks"], ["lfs", "unlock", "model.safetensors"]),
	);
	return findings;
}
