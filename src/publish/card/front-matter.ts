import { stringify } from "yaml";
import type { Manifest } from "../../protocol/manifest.ts";
import type { Container } from "../../protocol/recipe-table.ts";
import type { CardRequest } from "./card-request.ts";
import { publishedBitsPerWeight } from "./mixed-types.ts";
import { recipeNameOf } from "./published-measurement.ts";

const LIBRARIES: Readonly<Record<Container, string | null>> = {
	gguf: null,
	onnx: "transformers.js",
	"compressed-tensors": "transformers",
	gptq: "transformers",
	mlx: "mlx",
};

/** Formats of numbers by which people look for models, whatever their container. */
const FORMATS = ["nvfp4", "mxfp4", "fp8"] as const;

/** YAML of the model card. Values from outside were checked by `readSourceCard`; the writer quotes what needs it. */
export function frontMatter(request: Pick<CardRequest, "source" | "manifests">): string {
	const { source, manifests } = request;
	const recipe = recipeNameOf(manifests[0]);
	const library = LIBRARIES[recipe.container];
	const isNamed = (format: string) => manifests.some((manifest) => recipeNameOf(manifest).name.endsWith(format));
	const terms = [source, ...source.bases];
	const licenses = [...new Set(terms.flatMap(({ license }) => license ?? []))];
	const named = terms.find(({ licenseName }) => licenseName !== null);
	const linked = terms.find(({ licenseLink }) => licenseLink !== null);
	const bits = [...new Set(manifests.map(wholeBitsOf))].sort((one, other) => one - other);
	return stringify({
		// An adapter's variants are its own, and its base's.
		base_model: source.bases.length === 0 ? source.repo : terms.map(({ repo }) => repo),
		base_model_relation: "quantized",
		...(library === null ? {} : { library_name: library }),
		pipeline_tag: source.pipelineTag ?? "text-generation",
		...(licenses.length === 0 ? {} : { license: licenses.length === 1 ? licenses[0] : licenses }),
		...(named === undefined ? {} : { license_name: named.licenseName }),
		...(linked === undefined ? {} : { license_link: linked.licenseLink }),
		...(source.languages.length === 0 ? {} : { language: source.languages }),
		tags: [recipe.container, "quantized", "yaqa", ...bits.map((count) => `${count}-bit`), ...FORMATS.filter(isNamed)],
		quantized_by: "yaqa-bot",
	});
}

/** Bits as the names of types count them: a mix under a budget of bytes tells its own only in the manifest. */
function wholeBitsOf(manifest: Manifest): number {
	return recipeNameOf(manifest).bits || Math.floor(publishedBitsPerWeight(manifest.mixed));
}
