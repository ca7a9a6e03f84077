import { execFile } from "node:child_process";
import { mkdtempSync, openAsBlob, rmSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { createRepo, listFiles, uploadFiles } from "@huggingface/hub";
import { z } from "zod";
import { waitFor } from "../../demo/follow-job.ts";
import { DEMO_QUANTIZATION, root, type Stack, type StackOptions, startStack, venvPython } from "../../demo/stack.ts";
import type { ConfigurationInput } from "../../src/config/schema.ts";
import { type CommentEvent, commentsOf } from "../../src/hub/discussion.ts";
import { getDiscussion } from "../../src/hub/get-discussion.ts";
import { listDiscussions } from "../../src/hub/list-discussions.ts";
import { shareKernels } from "./shared-kernels.ts";

const run = promisify(execFile);

export type TinyFile = { readonly path: string; readonly content: Blob };

/** A Hub, a bot and a model so small that a whole job takes seconds. */
export type TinyStack = {
	readonly stack: Stack;
	readonly model: string;
	/** Makes the repo if it is not there and commits the files; resolves to the commit. */
	push(repo: string, files: readonly TinyFile[], message?: string): Promise<string>;
	/** The tiny model's own files. */
	modelFiles(): Promise<readonly TinyFile[]>;
	/** Every model of the bot's account, private ones too, once no job's staging repo is among them. */
	botRepos(): Promise<readonly string[]>;
	filesOf(repo: string): Promise<readonly string[]>;
	commitsOf(repo: string): Promise<readonly string[]>;
	/** Visible comments of every discussion in a repo, by discussion. */
	discussionsOf(repo: string): Promise<readonly (readonly CommentEvent[])[]>;
	close(): Promise<void>;
};

const TINY: ConfigurationInput = {
	quantization: {
		calibration: { ...DEMO_QUANTIZATION.calibration, sequences: 8, length: 32 },
		evaluation: { ...DEMO_QUANTIZATION.evaluation, sequences: 4, length: 32, verificationSequences: 1 },
		sketch: { iterations: 2 },
	},
	watch: { namespaces: ["demo"], recipes: ["gguf:q4_0", "w4a16"] },
};

const Models = z.array(z.object({ id: z.string() }));
const Commits = z.array(z.object({ id: z.string(), title: z.string() }));

export async function startTinyStack(options: Partial<StackOptions> = {}): Promise<TinyStack> {
	const dataDirectory = options.dataDirectory ?? mkdtempSync(join(tmpdir(), "yaqa-faults-"));
	const model = join(dataDirectory, "tiny-model");
	await run(venvPython, [join(root, "test", "faults", "make_tiny_model.py"), join(root, "demo", "model"), model]);
	shareKernels(join(dataDirectory, "bot"));
	const stack = await startStack({
		...options,
		dataDirectory,
		configuration: { ...TINY, ...options.configuration },
	});
	const { hub, people } = stack;
	const owner = { hubUrl: hub.url, accessToken: people.owner.token };
	const asBot = { authorization: `Bearer ${people.bot.token}` };

	return {
		stack,
		model,
		async push(repo, files, message = "Change the model") {
			try {
				await createRepo({ ...owner, repo });
			} catch (error) {
				if (!(error instanceof Error && "statusCode" in error && error.statusCode === 409)) throw error;
			}
			if (files.length === 0) return "";
			const done = await uploadFiles({ ...owner, repo, files: [...files], commitTitle: message });
			return done?.commit.oid ?? "";
		},
		async modelFiles() {
			const names = await readdir(model);
			return await Promise.all(
				names.map(async (name) => ({ path: name, content: await openAsBlob(join(model, name)) })),
			);
		},
		async botRepos() {
			return await waitFor(
				"The removal of the staging repos",
				async () => {
					const url = `${hub.url}/api/models?author=${people.bot.name}&limit=1000`;
					const names = Models.parse(await (await fetch(url, { headers: asBot })).json()).map((entry) => entry.id);
					return names.some((name) => name.includes("/staging-")) ? null : names.sort();
				},
				{ seconds: 60 },
			);
		},
		async filesOf(repo) {
			const paths: string[] = [];
			for await (const entry of listFiles({
				hubUrl: hub.url,
				accessToken: people.bot.token,
				repo: { type: "model", name: repo },
				recursive: true,
			})) {
				if (entry.type === "file") paths.push(entry.path);
			}
			return paths.sort();
		},
		async commitsOf(repo) {
			const response = await fetch(`${hub.url}/api/models/${repo}/commits/main`, { headers: asBot });
			return Commits.parse(await response.json()).map((commit) => commit.title);
		},
		async discussionsOf(repo) {
			const found: (readonly CommentEvent[])[] = [];
			for await (const entry of listDiscussions({ hubUrl: hub.url, accessToken: people.owner.token, repo })) {
				found.push(commentsOf(await getDiscussion({ ...owner, repo, num: entry.num })));
			}
			return found;
		},
		async close() {
			await stack.close();
			rmSync(dataDirectory, { recursive: true, force: true });
		},
	};
}
