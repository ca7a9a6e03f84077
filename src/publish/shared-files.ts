import { z } from "zod";
import { parseJson } from "../parse-json.ts";

/**
 * Variants in one repo share small files: `config.json`, the tokenizer. Where their versions differ, the repo's root
 * holds one that serves all, and each variant's own lies beside its manifest, so that every manifest stays true.
 */

const LoaderSettings = z.looseObject({
	use_external_data_format: z.union([z.record(z.string(), z.unknown()), z.unknown()]).optional(),
	kv_cache_dtype: z.union([z.record(z.string(), z.unknown()), z.unknown()]).optional(),
});
const Config = z.looseObject({ "transformers.js_config": LoaderSettings.optional() });
const PER_FILE_SETTINGS = ["use_external_data_format", "kv_cache_dtype"] as const;

/** Where a variant's own version of a file lies when the root has another one. */
export function ownVersionPath(manifestPath: string, path: string): string {
	return `${manifestPath.replace(/\.json$/, "")}/${path}`;
}

/** Weights are one variant's alone: two versions of such a file cannot both be there. */
export function isShareable(path: string): boolean {
	return !/\.(gguf|onnx|safetensors)$/.test(path) && !/\.onnx_data(_\d+)?$/.test(path);
}

/**
 * The `config.json` that serves every variant of an ONNX repo: the newest, with what each version says of its own
 * graph file. Its default `dtype` is left out when they differ: the reader names one.
 */
export function mergeConfigs(newest: string, others: readonly string[]): string {
	const configs = [newest, ...others].map((text) => Config.safeParse(parseJson(text)).data);
	const [base] = configs;
	if (base === undefined || base["transformers.js_config"] === undefined) return newest;
	const settings: Record<string, unknown> = { ...base["transformers.js_config"] };
	for (const name of PER_FILE_SETTINGS) {
		const parts = configs.flatMap((config) => {
			const value = config?.["transformers.js_config"]?.[name];
			return typeof value === "object" && value !== null ? [value] : [];
		});
		if (parts.length > 0) settings[name] = Object.assign({}, ...parts.toReversed());
	}
	const defaults = new Set(configs.map((config) => config?.["transformers.js_config"]?.["dtype"]));
	if (defaults.size > 1) delete settings["dtype"];
	return `${JSON.stringify({ ...base, "transformers.js_config": settings }, null, 2)}\n`;
}
