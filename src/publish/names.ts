import { createHash } from "node:crypto";
import { PermanentError } from "../errors.ts";
import { commitSuffix } from "../protocol/one-commit.ts";
import type { Recipe } from "../protocol/recipe.ts";
import { RECIPES } from "../protocol/recipe-table.ts";

/** The Hub's limit on the part of a repo name after the slash. */
export const MAXIMUM_REPO_NAME_CHARACTERS = 96;
const NAMESPACE = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,95}$/;
const HASH_CHARACTERS = 8;

/** The part of a name that stands for the recipe: everything that makes files different which would have the same path. */
function recipeSuffix(recipe: Recipe): string {
	const { container, name, defaultGroup, bits } = recipe.name;
	const parts: string[] = ["YAQA"];
	switch (container) {
		// One repo holds every type: their files have different names.
		case "gguf":
			parts.push("GGUF");
			break;
		case "onnx":
			parts.push("ONNX");
			break;
		case "compressed-tensors":
			parts.push(name.toUpperCase());
			break;
		case "gptq":
			parts.push("GPTQ", `${bits}bit`);
			break;
		case "mlx":
			parts.push("MLX", name.replace("mlx:", ""));
			break;
	}
	if (recipe.group !== defaultGroup && recipe.group !== null) parts.push(`g${recipe.group}`);
	if (recipe.zero) parts.push("asym");
	if (recipe.embeddingBits !== null) parts.push(`emb${recipe.embeddingBits}`);
	if (recipe.refineSweeps !== RECIPES.refineSweeps.default) parts.push(`r${recipe.refineSweeps}`);
	if (!recipe.tune) parts.push("untuned");
	return parts.join("-");
}

/**
 * The repo that a recipe of a source is published to. Derived, never taken from anybody's text. A long model name is
 * cut, with a hash of the whole name in place of what was cut, so that two long names do not meet. `sourceNamespace`
 * differences meet on purpose only in the marker check: a repo made from another source is never written to.
 *
 * `commit`: one that is not the head of the source's main branch. Its variants get a repo of their own, named for it:
 * the usual name gives everybody the newest, and engines load a repo by its name alone.
 */
export function targetRepo(request: {
	readonly namespace: string;
	readonly sourceRepo: string;
	readonly recipe: Recipe;
	readonly commit?: string | null;
}): string {
	const { namespace, sourceRepo, recipe, commit = null } = request;
	if (!NAMESPACE.test(namespace)) {
		throw new PermanentError({
			code: "internal",
			message: `${JSON.stringify(namespace)} cannot be a namespace of the Hub.`,
			remedy: "The operator sets hub.namespace to the bot's user or organization name.",
		});
	}
	const suffix = `${recipeSuffix(recipe)}${commit === null ? "" : commitSuffix(commit)}`;
	const model = (sourceRepo.split("/")[1] ?? "").replaceAll(/[^A-Za-z0-9._-]/g, "-").replaceAll(/([.-])[.-]+/g, "$1");
	const room = MAXIMUM_REPO_NAME_CHARACTERS - suffix.length - 1;
	const short =
		model.length <= room
			? model
			: `${model.slice(0, room - HASH_CHARACTERS - 1).replace(/[.-]+$/, "")}-${createHash("sha256").update(sourceRepo).digest("hex").slice(0, HASH_CHARACTERS)}`;
	return `${namespace}/${short}-${suffix}`;
}

/** The private repo in which a job's files wait for verification. */
export function stagingRepo(request: { readonly namespace: string; readonly jobId: string }): string {
	if (!/^[0-9a-f-]{36}$/.test(request.jobId)) throw new Error("A job id is a UUID. This is a bug in yaqa-bot.");
	return `${request.namespace}/staging-${request.jobId}`;
}
