import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { createRepo, uploadFiles } from "@huggingface/hub";
import { Manifest } from "../../src/protocol/manifest.ts";
import { recipeDirectory } from "../../src/protocol/recipe.ts";

/** What `test/fixtures/tiny/make.py` made. */
const TINY = join(import.meta.dirname, "../fixtures/tiny");
export const TINY_SOURCE = join(TINY, "source");
export const TINY_VERIFICATION = join(TINY, "variants", "verification.safetensors");
export const TINY_RECIPES = ["gguf:q4_0", "onnx:q4", "w4a16"] as const;
/** Containers and widths besides, for the checks of their structure. */
export const MORE_TINY_RECIPES = [
	"gguf:q4_k_m",
	"gguf,bpw=5",
	"onnx:q4f16",
	"onnx:q2",
	"w3a16,zero=on",
	"gptq:3",
	"onnx:q4,embedding=q8",
	"mlx:3bit",
	"mlx:nvfp4",
	"nvfp4",
	"mxfp4",
	"fp8",
] as const;
/** A repo with the tiny model; answers its commit. */
export async function pushTinySource(
	access: { readonly hubUrl: string; readonly accessToken: string; readonly fetch?: typeof fetch },
	repo: string,
	visibility: "public" | "private" = "public",
): Promise<string> {
	await createRepo({ ...access, repo, visibility });
	const done = await uploadFiles({ ...access, repo, files: [pathToFileURL(`${TINY_SOURCE}/`)] });
	assert.ok(done !== undefined);
	return done.commit.oid;
}

export type TinyRecipe = (typeof TINY_RECIPES)[number] | (typeof MORE_TINY_RECIPES)[number];

export function tinyDirectory(recipe: TinyRecipe): string {
	return join(TINY, "variants", recipeDirectory(recipe));
}

export async function readTinyManifest(recipe: TinyRecipe): Promise<Manifest> {
	return Manifest.parse(JSON.parse(await readFile(join(tinyDirectory(recipe), "manifest.json"), "utf8")));
}

/** A copy of a variant's folder to break, removed at the end of `use`. */
export async function withCopy<Result>(
	recipe: TinyRecipe,
	use: (directory: string) => Promise<Result>,
): Promise<Result> {
	const directory = await mkdtemp(join(tmpdir(), "yaqa-tiny-"));
	try {
		await cp(tinyDirectory(recipe), directory, { recursive: true });
		return await use(directory);
	} finally {
		await rm(directory, { recursive: true, force: true });
	}
}
