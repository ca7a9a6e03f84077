import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { CommentHandler } from "../../src/commands/comment-handler.ts";
import type { Refusal } from "../../src/errors.ts";
import type { Ports } from "../../src/jobs/ports.ts";
import type { Manifest } from "../../src/protocol/manifest.ts";
import { commitSuffix } from "../../src/protocol/one-commit.ts";
import { recipeDirectory } from "../../src/protocol/recipe.ts";
import type { OwnerSettings, SourceContent } from "../../src/records/source.ts";

/**
 * The outside of the engine as a folder: it outlives a killed process like a Hub does, and what was done to it can be
 * counted. `log.jsonl` has one line for every call that changed something.
 */
export type ScriptedWorld = {
	readonly directory: string;
	setHead(repo: string, sha: string): void;
	setPrivate(repo: string, isPrivate: boolean): void;
	/** The repo is an adapter of this one. */
	setBase(repo: string, base: string): void;
	/** Its owner gives a repo another name; the former one leads there. */
	rename(from: string, to: string): void;
	setRefusal(repo: string, refusal: Refusal): void;
	/** What the owner says in the repo itself. */
	setOwnerSettings(repo: string, owner: OwnerSettings): void;
	/** From now on nothing of the repo's is taken over: its source is gone. */
	refuseRepublishing(): void;
	/** Somebody deletes a published repo. */
	deletePublished(targetRepo: string): void;
	/** What a commit's files are; without it nothing is taken over from another one. */
	setContent(sha: string, content: SourceContent): void;
	/** What the runner does with the repo's model, see scripted-runner.mjs; `modelType`: what kind it is. */
	setBehaviour(repo: string, behaviour: Readonly<Record<string, unknown>>): void;
	setDelay(call: string, milliseconds: number): void;
	/** The call throws this often before it works. */
	setFailures(call: string, times: number): void;
	calls(): readonly { readonly call: string; readonly detail: string }[];
	published(): readonly string[];
	stagingRepos(): readonly string[];
};

function safeName(text: string): string {
	return text.replaceAll("/", "__");
}

function readJson<T>(path: string, fallback: T): T {
	return existsSync(path) ? (JSON.parse(readFileSync(path, "utf8")) as T) : fallback;
}

export function scriptedWorld(directory: string): ScriptedWorld {
	for (const folder of [
		"heads",
		"private",
		"bases",
		"renamed",
		"refusals",
		"owner-settings",
		"behaviours",
		"published",
		"staging",
		"contents",
		"delays",
		"failures",
	]) {
		mkdirSync(join(directory, folder), { recursive: true });
	}
	return {
		directory,
		setHead: (repo, sha) => writeFileSync(join(directory, "heads", safeName(repo)), sha),
		setPrivate: (repo, isPrivate) => {
			const path = join(directory, "private", safeName(repo));
			if (isPrivate) writeFileSync(path, "");
			else rmSync(path, { force: true });
		},
		setBase: (repo, base) => writeFileSync(join(directory, "bases", safeName(repo)), JSON.stringify(base)),
		rename: (from, to) => {
			for (const folder of ["heads", "private"]) {
				const path = join(directory, folder, safeName(from));
				if (existsSync(path)) renameSync(path, join(directory, folder, safeName(to)));
			}
			writeFileSync(join(directory, "renamed", safeName(from)), JSON.stringify(to));
		},
		setRefusal: (repo, refusal) => writeFileSync(join(directory, "refusals", safeName(repo)), JSON.stringify(refusal)),
		setOwnerSettings: (repo, owner) =>
			writeFileSync(join(directory, "owner-settings", safeName(repo)), JSON.stringify(owner)),
		setContent: (sha, content) => writeFileSync(join(directory, "contents", sha), JSON.stringify(content)),
		refuseRepublishing: () => writeFileSync(join(directory, "gone"), ""),
		deletePublished: (targetRepo) => rmSync(join(directory, "published", safeName(targetRepo))),
		setBehaviour: (repo, behaviour) =>
			writeFileSync(join(directory, "behaviours", safeName(repo)), JSON.stringify(behaviour)),
		setDelay: (call, milliseconds) => writeFileSync(join(directory, "delays", call), String(milliseconds)),
		setFailures: (call, times) => writeFileSync(join(directory, "failures", call), String(times)),
		calls() {
			const path = join(directory, "log.jsonl");
			if (!existsSync(path)) return [];
			return readFileSync(path, "utf8")
				.trim()
				.split("\n")
				.filter((line) => line !== "")
				.map((line) => JSON.parse(line) as { call: string; detail: string });
		},
		published: () => readdirSync(join(directory, "published")).toSorted(),
		stagingRepos: () => readdirSync(join(directory, "staging")).toSorted(),
	};
}

export function shaOf(text: string): string {
	return createHash("sha1").update(text).digest("hex");
}

/** Writes calls down, and makes them slow or fail as the world says. */
function scriptedCalls({ directory }: ScriptedWorld) {
	function record(call: string, detail: string): void {
		writeFileSync(join(directory, "log.jsonl"), `${JSON.stringify({ call, detail })}\n`, { flag: "a" });
	}
	async function enter(call: string): Promise<void> {
		const delay = join(directory, "delays", call);
		if (existsSync(delay)) await sleep(Number(readFileSync(delay, "utf8")));
		const failures = join(directory, "failures", call);
		const left = existsSync(failures) ? Number(readFileSync(failures, "utf8")) : 0;
		if (left > 0) {
			writeFileSync(failures, String(left - 1));
			const { RetryableError } = await import("../../src/errors.ts");
			throw new RetryableError(`scripted failure of ${call}`, { retryAfterSeconds: 0.1 });
		}
	}
	return { record, enter };
}

/** Answers every comment. */
export function scriptedComments(world: ScriptedWorld): CommentHandler {
	const { record, enter } = scriptedCalls(world);
	return async ({ discussion }) => {
		await enter("handleComment");
		record("comment", String(discussion));
		return { outcome: "accepted", detail: "answered" };
	};
}

export function scriptedPorts(world: ScriptedWorld): Ports {
	const { directory } = world;
	const { record, enter } = scriptedCalls(world);
	const nameOf = (repo: string) => readJson(join(directory, "renamed", safeName(repo)), repo);
	const headOf = (repo: string) => {
		const path = join(directory, "heads", safeName(nameOf(repo)));
		return existsSync(path) ? readFileSync(path, "utf8") : null;
	};
	return {
		async inspectSource({ repo, revision, baseSha = null }) {
			await enter("inspectSource");
			const head = headOf(repo);
			if (head === null) {
				const refusal: Refusal = { code: "repo-not-found", message: `There is no ${repo}.`, remedy: "Check the name." };
				return { ok: false, refusal, sha: null };
			}
			const sha = /^[0-9a-f]{40}$/.test(revision) ? revision : head;
			const refusal = readJson<Refusal | null>(join(directory, "refusals", safeName(repo)), null);
			if (refusal !== null) {
				const told = { tags: [], pipelineTag: "image-classification", architectures: ["ViTForImageClassification"] };
				return { ok: false, refusal, sha, private: existsSync(join(directory, "private", safeName(repo))), told };
			}
			const baseRepo = readJson<string | null>(join(directory, "bases", safeName(repo)), null);
			const base = baseRepo === null ? null : { repo: baseRepo, sha: baseSha ?? headOf(baseRepo) ?? shaOf(baseRepo) };
			return {
				ok: true,
				facts: {
					repo,
					base,
					sha,
					currentName: nameOf(repo),
					headSha: head,
					architecture: "LlamaForCausalLM",
					modelType:
						readJson<{ modelType?: string }>(join(directory, "behaviours", safeName(repo)), {}).modelType ?? null,
					parameters: 1000,
					weightBytes: 4000,
					license: "apache-2.0",
					gated: false,
					private: existsSync(join(directory, "private", safeName(repo))),
					tags: [],
					content: readJson(join(directory, "contents", sha), null),
				},
				told: { tags: [], pipelineTag: null, architectures: ["LlamaForCausalLM"] },
			};
		},
		async fetchSource({ repo, directory: to, signal }) {
			await enter("fetchSource");
			signal.throwIfAborted();
			const behaviour = join(directory, "behaviours", safeName(repo));
			if (existsSync(behaviour)) cpSync(behaviour, join(to, "behaviour.json"));
			return { ok: true };
		},
		nameTarget: ({ sourceRepo, recipe, commit }) =>
			`quantized/${sourceRepo.split("/")[1]}-YAQA-${recipe.name.container === "gguf" ? "GGUF" : recipeDirectory(recipe.canonical)}${commit === null ? "" : commitSuffix(commit)}`,
		async stage({ job, variants, verificationPath }) {
			await enter("stage");
			const to = join(directory, "staging", `${job.id}-${job.fence}`);
			const draft = join(directory, `draft-${job.id}-${job.fence}`);
			rmSync(draft, { recursive: true, force: true });
			for (const { variant, directory: from } of variants) {
				cpSync(from, join(draft, recipeDirectory(variant.recipe)), { recursive: true });
			}
			cpSync(verificationPath, join(draft, "verification.safetensors"));
			rmSync(to, { recursive: true, force: true });
			renameSync(draft, to);
			record("stage", `${job.id}-${job.fence}`);
			return { ok: true, stagingRepo: `quantized/staging-${job.id}` };
		},
		async fetchStaged({ job, directory: to }) {
			await enter("fetchStaged");
			cpSync(join(directory, "staging", `${job.id}-${job.fence}`), to, { recursive: true });
			return { ok: true };
		},
		async removeStaging({ job }) {
			await enter("removeStaging");
			for (const name of readdirSync(join(directory, "staging"))) {
				if (name.startsWith(job.id)) rmSync(join(directory, "staging", name), { recursive: true, force: true });
			}
		},
		async verify({ directory: from, manifest }) {
			await enter("verify");
			const bad = manifest.files.find((file) => {
				const bytes = readFileSync(join(from, file.path));
				return createHash("sha256").update(bytes).digest("hex") !== file.sha256;
			});
			if (bad !== undefined) {
				const refusal: Refusal = { code: "verification-failed", message: `${bad.path} differs.`, remedy: "Retry." };
				return { ok: false, refusal, checks: [] };
			}
			return { ok: true, manifest, checks: ["every hash agrees"] };
		},
		async publish({ targetRepo, variants }) {
			await enter("publish");
			const path = join(directory, "published", safeName(targetRepo));
			const head = readJson<Record<string, string>>(path, {});
			const isThere = variants.every(({ variant, manifest }) => head[variant.recipe] === manifest.files[0]?.sha256);
			for (const { variant, manifest } of variants) head[variant.recipe] = manifest.files[0]?.sha256 ?? "";
			const targetSha = shaOf(JSON.stringify(head));
			if (!isThere) {
				writeFileSync(`${path}.draft`, JSON.stringify(head));
				renameSync(`${path}.draft`, path);
				record("publish", targetRepo);
			}
			await enter("afterPublish");
			return { ok: true, targetRepo, targetSha, url: `hub/${targetRepo}` };
		},
		async republish({ targetRepo, variants }) {
			await enter("republish");
			if (existsSync(join(directory, "gone"))) {
				const refusal: Refusal = { code: "repo-not-found", message: "It is gone.", remedy: "Retry." };
				return { kind: "refused", refusal };
			}
			if (!existsSync(join(directory, "published", safeName(targetRepo)))) {
				return { kind: "vanished", reason: `${targetRepo} was no longer there.` };
			}
			record("republish", `${targetRepo} ${variants.map(({ variant }) => variant.recipe).join(" ")}`);
			const manifests = new Map<string, Manifest>();
			for (const { variant, origin } of variants) {
				if (origin.manifest === null) throw new Error("What is taken over was published.");
				const source = { ...origin.manifest.source, revision: variant.sourceSha };
				manifests.set(variant.id, { ...origin.manifest, source });
			}
			return { kind: "published", targetSha: shaOf(`${targetRepo} again`), manifests };
		},
		async followVisibility({ sourceRepo, bases, repos }) {
			await enter("followVisibility");
			const name = nameOf(sourceRepo);
			const isPrivate = [name, ...bases].some((repo) => existsSync(join(directory, "private", safeName(repo))));
			const changed = repos.filter(({ tightened }) => tightened !== isPrivate);
			for (const { repo } of changed) record(isPrivate ? "tighten" : "loosen", repo);
			return {
				name,
				private: isPrivate,
				gated: false,
				repos: repos.map(({ repo }) => ({ repo, tightened: isPrivate })),
			};
		},
		async refreshCard({ targetRepo, newestSha }) {
			await enter("refreshCard");
			record("refresh-card", `${targetRepo} ${newestSha?.slice(0, 8)}`);
		},
		async announce({ sourceRepo, discussion, jobs, refused }) {
			await enter("announce");
			if (discussion === null) record("open-discussion", sourceRepo);
			record("announce", `${sourceRepo} ${jobs[0]?.state ?? "none"} ${refused?.refusal.code ?? "fine"}`);
			return { discussion: discussion ?? 1 };
		},
		async reply({ request, job, variants }) {
			await enter("reply");
			const published = variants.filter((variant) => variant.state === "published").length;
			record(request.replyTo?.replyCommentId === null ? "post-reply" : "edit-reply", `${job?.state} ${published}`);
			return { replyCommentId: request.replyTo?.replyCommentId ?? "comment-of-ours" };
		},
		async readOwnerSettings({ repo }) {
			await enter("readOwnerSettings");
			return readJson(join(directory, "owner-settings", safeName(repo)), { settings: null, closed: false });
		},
		async *listHeads(request) {
			await enter("listHeads");
			for (const name of readdirSync(join(directory, "heads"))) {
				const repo = name.replace("__", "/");
				const isWanted = request.kind === "repo" ? repo === request.repo : repo.startsWith(`${request.namespace}/`);
				const sha = headOf(repo);
				if (isWanted && sha !== null) yield { repo, sha };
			}
		},
	};
}
