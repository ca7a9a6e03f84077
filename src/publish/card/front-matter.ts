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
	const isNamed = (format: string) => manifests.some((manifest) => recipeNameOf(manifest).name === format);
	const bits = [...new Set(manifests.map(wholeBitsOf))].sort((one, other) => one - other);
	return stringify({
		base_model: source.repo,
		base_model_relation: "quantized",
		...(library === null ? {} : { library_name: library }),
		pipeline_tag: source.pipelineTag ?? "text-generation",
		...(source.license === null ? {} : { license: source.license }),
		...(source.licenseName === null ? {} : { license_name: source.licenseName }),
		...(source.licenseLink === null ? {} : { license_link: source.licenseLink }),
		...(source.languages.length === 0 ? {} : { language: source.languages }),
		tags: [recipe.container, "quantized", "yaqa", ...bits.map((count) => `${count}-bit`), ...FORMATS.filter(isNamed)],
		quantized_by: "yaqa-bot",
	});
}

/** Bits as the names of types count them: a mix under a budget of bytes tells its own only in the manifest. */
function wholeBitsOf(manifest: Manifest): number {
	return recipeNameOf(manifest).bits || Math.floor(publishedBitsPerWeight(manifest.mixed));
}
