import { join } from "node:path";
import type { Manifest } from "../protocol/manifest.ts";
import type { Recipe } from "../protocol/recipe.ts";
import { assertCheck, CheckFailure } from "./manifest-checks.ts";
import { openSafetensors, type SafetensorsFile } from "./read-safetensors.ts";
import { SafetensorsHeaderError, type TensorInfo } from "./safetensors-header.ts";

/**
 * Calls `check` for every packed tensor (a name that ends with `suffix`) of a folder's safetensors files, `checkOther` for
 * each other one, and returns
 * how many linears there are: the very ones that the manifest describes, no tensor stored twice.
 */
export async function checkPackedLinears(
	request: {
		readonly directory: string;
		readonly manifest: Manifest;
		readonly suffix: string;
		/** What is packed, too, and is no linear of the manifest. */
		readonly besides?: ReadonlySet<string>;
	},
	check: (file: SafetensorsFile, packed: TensorInfo, layer: string) => Promise<void>,
	checkOther: (tensor: TensorInfo) => void = () => {},
): Promise<number> {
	const { directory, manifest, suffix, besides = new Set() } = request;
	const layers = new Set(manifest.layers.map((layer) => layer.name));
	const names = new Set<string>();
	let packed = 0;
	let others = 0;
	for (const { path } of manifest.files) {
		if (!path.endsWith(".safetensors")) continue;
		const file = await openSafetensors(join(directory, path)).catch((error: unknown) => {
			if (!(error instanceof SafetensorsHeaderError)) throw error;
			throw new CheckFailure(`${path} is not a sound safetensors file: ${error.message}`);
		});
		try {
			for (const tensor of file.header.tensors.values()) {
				assertCheck(!names.has(tensor.name), `${tensor.name} is stored twice`);
				names.add(tensor.name);
				if (!tensor.name.endsWith(suffix)) {
					checkOther(tensor);
					continue;
				}
				const layer = tensor.name.slice(0, -suffix.length);
				const isOther = besides.has(layer);
				assertCheck(layers.has(layer) || isOther, `${layer} is packed, but the manifest does not describe it`);
				await check(file, tensor, layer);
				if (isOther) others++;
				else packed++;
			}
		} finally {
			await file.close();
		}
	}
	assertCheck(others === besides.size, `${others} of ${[...besides].join(", ")} are packed`);
	assertCheck(packed === layers.size, `${packed} linears are packed, the manifest describes ${layers.size}`);
	return packed;
}

/** The group that the files are stored in: the recipe's, or the smaller one that fits the model's widths. */
export function storedGroup(manifest: Manifest, recipe: Recipe): number {
	const { fittedGroup } = manifest;
	if (fittedGroup === undefined || fittedGroup === null) {
		assertCheck(recipe.group !== null, `the recipe ${recipe.canonical} has no group`);
		return recipe.group;
	}
	const { asked, used } = fittedGroup;
	assertCheck(
		asked === recipe.group && used < asked && recipe.name.groups.includes(used),
		`the manifest says groups of ${used} for ${asked}; ${recipe.canonical} allows no such thing`,
	);
	return used;
}
