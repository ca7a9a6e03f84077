import type { KeyObject } from "node:crypto";
import { existsSync, readFileSync, statSync } from "node:fs";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { availableParallelism, tmpdir, totalmem } from "node:os";
import { dirname, join, resolve } from "node:path";
import { systemClock } from "../clock.ts";
import { loadConfiguration } from "../config/load.ts";
import type { Configuration } from "../config/schema.ts";
import type { Secrets } from "../config/secrets.ts";
import { downloadRepoFile } from "../hub/download-repo-file.ts";
import { downloadRepoFiles } from "../hub/download-repo-files.ts";
import type { HubAccess } from "../hub/hub-access.ts";
import { hubStatus } from "../hub/hub-request-error.ts";
import { listHeads } from "../hub/list-heads.ts";
import type { RepoFile } from "../hub/list-repo-files.ts";
import { repoName } from "../protocol/job-spec.ts";
import type { Manifest } from "../protocol/manifest.ts";
import { MANIFEST_NAME } from "../protocol/read-manifest.ts";
import { parseRecipe, recipeDirectory } from "../protocol/recipe.ts";
import {
	MAXIMUM_SIGNATURE_BYTES,
	parsePublicKey,
	signaturePath,
	signatureProblem,
} from "../publish/manifest-signature.ts";
import { readPublishedManifests } from "../publish/published-manifests.ts";
import { readAccess } from "../server/hub-access.ts";
import { CheckFailure, manifestOf } from "../verify/manifest-checks.ts";
import { verifyVariant } from "../verify/verify-variant.ts";
import { problemLine } from "./config-check.ts";
import { EXIT_CODES, type ExitCode } from "./exit-codes.ts";
import { createProgressDisplay } from "./progress-display.ts";
import { recomputeKl } from "./recompute-kl.ts";
import { printable, type Terminal } from "./terminal.ts";
import { reportVariant, type VariantReport, variantLines } from "./variant-lines.ts";

export type VerifyOptions = {
	readonly target: string;
	readonly revision: string | null;
	readonly verification: string | null;
	/** A file with the public key that manifests have to be signed with. */
	readonly key: string | null;
	/** Whether KL is computed again, which takes the original. */
	readonly kl: boolean;
	readonly configurationPath: string | null;
	readonly json: boolean;
};

const VERIFICATION_NAME = "verification.safetensors";

type Found = { readonly directory: string; readonly manifest: Manifest };
type Located =
	| {
			readonly ok: true;
			readonly variants: readonly Found[];
			readonly broken: readonly string[];
			readonly verificationPath: string | null;
	  }
	| { readonly ok: false; readonly exit: ExitCode; readonly message: string };

/** A variant's own folder, or a folder of several as `quantize` leaves it. */
async function locateInFolder(directory: string): Promise<Located> {
	const folders = existsSync(join(directory, MANIFEST_NAME))
		? [directory]
		: (await readdir(directory, { withFileTypes: true }))
				.filter((entry) => entry.isDirectory() && existsSync(join(directory, entry.name, MANIFEST_NAME)))
				.map((entry) => join(directory, entry.name));
	if (folders.length === 0) {
		return {
			ok: false,
			exit: EXIT_CODES.refused.code,
			message: `No variant with a ${MANIFEST_NAME} is in ${directory}.`,
		};
	}
	const variants: Found[] = [];
	const broken: string[] = [];
	for (const folder of folders) {
		try {
			variants.push({ directory: folder, manifest: await manifestOf(folder) });
		} catch (error) {
			if (!(error instanceof CheckFailure)) throw error;
			broken.push(`${folder}: ${error.message}`);
		}
	}
	const verificationPath =
		[directory, dirname(directory)].map((folder) => join(folder, VERIFICATION_NAME)).find((path) => existsSync(path)) ??
		null;
	return { ok: true, variants, broken, verificationPath };
}

function isPublicKey(path: string): boolean {
	return existsSync(path) && parsePublicKey(readFileSync(path, "utf8")) !== null;
}

/** What is wrong with the signature that stands beside a manifest; `null`: nothing. */
async function signatureProblemOf(
	access: HubAccess & { readonly repo: string; readonly revision: string },
	files: readonly RepoFile[],
	manifestPath: string,
	text: string,
	key: KeyObject,
): Promise<string | null> {
	const listed = files.find((file) => file.path === signaturePath(manifestPath));
	if (listed === undefined || listed.size > MAXIMUM_SIGNATURE_BYTES) return signatureProblem(text, null, key);
	const { repo, revision, ...hub } = access;
	const bytes = await downloadRepoFile(hub, repo, revision, listed.path);
	return signatureProblem(text, new TextDecoder().decode(bytes), key);
}

async function locateOnHub(
	options: VerifyOptions,
	repo: string,
	work: string,
	context: {
		readonly loaded: { readonly configuration: Configuration; readonly secrets: Secrets };
		readonly terminal: Terminal;
		readonly signal: AbortSignal;
	},
): Promise<Located> {
	const access = {
		...readAccess(context.loaded.configuration, context.loaded.secrets),
		repo,
		revision: options.revision ?? "main",
	};
	const key = options.key === null ? null : parsePublicKey(readFileSync(options.key, "utf8"));
	try {
		const published = await readPublishedManifests(access);
		if (published.manifests.length === 0) {
			return { ok: false, exit: EXIT_CODES.refused.code, message: `${repo} holds no manifest of this bot.` };
		}
		const variants: Found[] = [];
		const broken: string[] = [];
		for (const { path: manifestPath, manifest, text, files } of published.manifests) {
			const problem = key === null ? null : await signatureProblemOf(access, published.files, manifestPath, text, key);
			if (problem !== null) broken.push(`${manifest.recipe}: ${problem}`);
			else if (key !== null) context.terminal.err(`signature: ${printable(manifest.recipe)} is signed by this key\n`);
			const directory = join(work, recipeDirectory(manifest.recipe));
			const places = new Map(files.map(({ path, listed }) => [listed.path, path]));
			context.terminal.err(`fetch ${files.length} files of ${printable(manifest.recipe)} …\n`);
			await downloadRepoFiles({
				...access,
				files: files.map(({ listed }) => listed),
				directory,
				place: (path) => places.get(path) ?? path,
				signal: context.signal,
			});
			await writeFile(join(directory, MANIFEST_NAME), text);
			variants.push({ directory, manifest });
		}
		return { ok: true, variants, broken, verificationPath: null };
	} catch (error) {
		const status = hubStatus(error);
		if (status !== 401 && status !== 403 && status !== 404) throw error;
		return {
			ok: false,
			exit: EXIT_CODES.refused.code,
			message: `There is no repo ${repo} at ${access.hubUrl} that can be read${access.accessToken === undefined ? " without a token" : ""}.`,
		};
	}
}

async function klOf(
	variants: readonly Found[],
	context: Omit<Parameters<typeof recomputeKl>[1], "display">,
): ReturnType<typeof recomputeKl> {
	const display = createProgressDisplay(context.terminal, () => systemClock.now());
	try {
		return await recomputeKl(variants, { ...context, display });
	} finally {
		display.close();
	}
}

/** `yaqa-bot verify --all`: every repo of a namespace that holds variants of this bot's, one after the other. */
export async function verifyAll(
	options: {
		readonly namespace: string;
		readonly key: string | null;
		readonly kl: boolean;
		readonly configurationPath: string | null;
		readonly json: boolean;
	},
	context: { readonly terminal: Terminal; readonly signal: AbortSignal },
): Promise<ExitCode> {
	const { namespace, configurationPath, json } = options;
	const { terminal, signal } = context;
	const fail = (message: string, code: ExitCode): ExitCode => {
		terminal.err(`${printable(message)}\n`);
		if (json) terminal.out(`${JSON.stringify({ ok: false, error: { message } })}\n`);
		return code;
	};
	const loaded = loadConfiguration(configurationPath === null ? {} : { path: configurationPath });
	if (!loaded.ok) return fail(loaded.problems.map(problemLine).join(" "), EXIT_CODES.usage.code);
	const access = readAccess(loaded.configuration, loaded.secrets);
	const repos: { readonly repo: string; readonly ok: boolean; readonly exit: ExitCode }[] = [];
	try {
		for await (const { repo, sha } of listHeads({ ...access, of: { kind: "namespace", namespace } })) {
			signal.throwIfAborted();
			const { manifests } = await readPublishedManifests({ ...access, repo, revision: sha });
			if (manifests.length === 0) {
				// A repo of ours whose manifests were taken away or broken must not pass for one that is none of ours.
				if (!/-YAQA-/.test(repo)) continue;
				terminal.err(`${printable(repo)}: holds no manifest that can be read\n`);
				repos.push({ repo, ok: false, exit: EXIT_CODES.unverified.code });
				continue;
			}
			terminal.err(`${printable(repo)}:\n`);
			const quiet = { ...terminal, out: () => undefined };
			const exit = await verify(
				{
					target: repo,
					revision: sha,
					verification: null,
					key: options.key,
					kl: options.kl,
					configurationPath,
					json: false,
				},
				{ terminal: quiet, signal },
			);
			repos.push({ repo, ok: exit === EXIT_CODES.ok.code, exit });
		}
	} catch (error) {
		const message = error instanceof Error ? error.message : String(error);
		return fail(message, signal.aborted ? EXIT_CODES.interrupted.code : EXIT_CODES.failed.code);
	}
	if (repos.length === 0) return fail(`${namespace} holds no variants of this bot.`, EXIT_CODES.refused.code);
	const ok = repos.every((one) => one.ok);
	if (json) terminal.out(`${JSON.stringify({ ok, repos })}\n`);
	else for (const one of repos) terminal.out(`${one.ok ? "✓" : "✗"} ${printable(one.repo)}\n`);
	return ok ? EXIT_CODES.ok.code : EXIT_CODES.unverified.code;
}

/** `yaqa-bot verify`: the checks that stand before every publication, for anybody to repeat. */
export async function verify(
	options: VerifyOptions,
	context: { readonly terminal: Terminal; readonly signal: AbortSignal },
): Promise<ExitCode> {
	const { terminal, signal } = context;
	const fail = (message: string, code: ExitCode): ExitCode => {
		terminal.err(`${printable(message)}\n`);
		if (options.json) terminal.out(`${JSON.stringify({ ok: false, error: { message } })}\n`);
		return code;
	};
	const work = await mkdtemp(join(tmpdir(), "yaqa-verify-"));
	try {
		const loaded = loadConfiguration(options.configurationPath === null ? {} : { path: options.configurationPath });
		if (!loaded.ok) {
			return fail(loaded.problems.map(problemLine).join(" "), EXIT_CODES.usage.code);
		}
		const { configuration } = loaded;
		if (options.key !== null && !isPublicKey(options.key)) {
			return fail(`${options.key} holds no Ed25519 public key in PEM form.`, EXIT_CODES.usage.code);
		}
		const isFolder = existsSync(options.target) && statSync(options.target).isDirectory();
		const repo = repoName.safeParse(options.target);
		let located: Located;
		if (isFolder) located = await locateInFolder(resolve(options.target));
		else if (repo.success) located = await locateOnHub(options, repo.data, work, { ...context, loaded });
		else {
			located = {
				ok: false,
				exit: EXIT_CODES.usage.code,
				message: `"${options.target.slice(0, 200)}" is neither a folder here nor a repo name such as owner/model.`,
			};
		}
		if (located.ok && isFolder && options.key !== null) {
			const message = "--key belongs to a published repo: a folder's manifest is not signed yet.";
			located = { ok: false, exit: EXIT_CODES.usage.code, message };
		}
		if (located.ok && options.verification !== null && !existsSync(options.verification)) {
			located = { ok: false, exit: EXIT_CODES.usage.code, message: `There is no file ${options.verification}.` };
		}
		if (!located.ok) return fail(located.message, located.exit);
		const recomputed = options.kl ? await klOf(located.variants, { ...context, ...loaded, work }) : [];
		const reports: VariantReport[] = [];
		for (const [at, { directory, manifest }] of located.variants.entries()) {
			signal.throwIfAborted();
			terminal.err(`verify ${printable(manifest.recipe)} …\n`);
			const parsed = parseRecipe(manifest.recipe);
			if (!parsed.ok) {
				const checks = [`failed: this version does not know the recipe ${manifest.recipe}`];
				reports.push(reportVariant({ manifest, directory, verified: false, checks }));
				continue;
			}
			const verification = await verifyVariant({
				directory,
				manifest,
				recipe: parsed.recipe,
				verificationPath: options.verification ?? located.verificationPath,
				policy: configuration.verification,
				limits: {
					milliseconds: 30 * 60_000,
					memoryBytes: Math.floor(totalmem() * 0.8),
					threads: availableParallelism(),
				},
				signal,
			});
			const kl = recomputed[at];
			const checks = [...verification.checks, ...(kl === undefined ? [] : [kl.check])];
			for (const check of checks) terminal.err(`    ${printable(check)}\n`);
			const verified = verification.ok && kl?.ok !== false;
			reports.push(reportVariant({ manifest, directory, verified, checks }));
		}
		for (const problem of located.broken) terminal.err(`✗ ${printable(problem)}\n`);
		const ok = reports.every((report) => report.verified) && located.broken.length === 0;
		if (options.json) terminal.out(`${JSON.stringify({ ok, variants: reports, broken: located.broken })}\n`);
		else if (reports.length > 0) terminal.out(`${printable(variantLines(reports))}\n`);
		return ok ? EXIT_CODES.ok.code : EXIT_CODES.unverified.code;
	} catch (error) {
		const message = error instanceof Error ? error.message : String(error);
		return fail(message, signal.aborted ? EXIT_CODES.interrupted.code : EXIT_CODES.failed.code);
	} finally {
		await rm(work, { recursive: true, force: true });
	}
}
