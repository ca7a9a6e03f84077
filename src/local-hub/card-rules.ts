import { z } from "zod";
import { parseCard } from "./repo-facts.ts";

/** The Hub's own list, as its API description gives it for the creation of repos. */
const LICENSES =
	"apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openmdw-1.0 openmdw-1.1 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma unknown other".split(
		" ",
	);
const LICENSE_SET: ReadonlySet<string> = new Set(LICENSES);
const MODEL_ID = /^[A-Za-z0-9][\w.-]*(?:\/[A-Za-z0-9][\w.-]*)?$/;
const LANGUAGE = /^(?:[a-z]{2,3}|code|multilingual|other)$/;

type Problem = { readonly message: string };

const text = z.string().min(1).max(200);
const SHAPES: Readonly<Record<string, z.ZodType>> = {
	base_model_relation: z.enum(["adapter", "merge", "quantized", "finetune"]),
	tags: z.array(text).nullable(),
	datasets: z.union([text, z.array(text)]),
	library_name: text,
	license_name: z.string().regex(/^[a-z0-9-.]+$/),
	license_link: z.string().min(1),
	pipeline_tag: z.string().regex(/^[a-z0-9-]+$/),
};

function listed(value: unknown): readonly unknown[] {
	return Array.isArray(value) ? value : [value];
}

function licenseProblems(value: unknown): Problem[] {
	return listed(value).every((one) => typeof one === "string" && LICENSE_SET.has(one))
		? []
		: [{ message: `"license" must be one of [${LICENSES.join(", ")}]` }];
}

function baseModelProblems(value: unknown): Problem[] {
	return listed(value).flatMap((one, index) => {
		if (typeof one === "string" && one.length <= 200 && MODEL_ID.test(one)) return [];
		const place = Array.isArray(value) ? `base_model[${index}]` : "base_model";
		return [{ message: `"${place}" with value "${String(one)}" is not valid. Use a model id.` }];
	});
}

function languageProblems(value: unknown): Problem[] {
	if (value === null || value === false) return [];
	return listed(value).flatMap((one, index) => {
		if (typeof one === "string" && LANGUAGE.test(one)) return [];
		const place = Array.isArray(value) ? `language[${index}]` : "language";
		// `no` without quotes is a boolean in the YAML that cards are written in.
		return typeof one === "string"
			? [
					{
						message: `"${place}" with value "${one}" is not valid. It must be an ISO 639-1, 639-2 or 639-3 code (two/three letters), or a special value like "code", "multilingual".`,
					},
				]
			: [{ message: `"${place}" must be a string` }];
	});
}

const Metric = z.looseObject({ type: z.string(), value: z.unknown().refine((value) => value !== undefined) });
const ModelIndex = z.array(
	z.looseObject({
		name: z.string(),
		results: z.array(
			z.looseObject({
				task: z.looseObject({ type: z.string() }),
				dataset: z.looseObject({ type: z.string(), name: z.string() }).optional(),
				metrics: z.array(Metric),
			}),
		),
	}),
);

function placeOf(path: readonly PropertyKey[]): string {
	return path.map((part) => (typeof part === "number" ? `[${part}]` : `.${String(part)}`)).join("");
}

function modelIndexProblems(value: unknown): Problem[] {
	const parsed = ModelIndex.safeParse(value);
	if (parsed.success) return [];
	return parsed.error.issues.map(({ path, message }) => ({
		message: /received undefined/.test(message)
			? `"model-index${placeOf(path)}" is required`
			: `"model-index${placeOf(path)}" ${message}`,
	}));
}

/** What a card may not hold, in the words of `validate-yaml`. */
export function cardProblems(content: string): { readonly errors: Problem[]; readonly warnings: Problem[] } {
	const { data, error } = parseCard(content);
	if (error !== null) return { errors: [{ message: error }], warnings: [] };
	if (data === null) return { errors: [], warnings: [{ message: "empty or missing yaml metadata in repo card" }] };
	const errors: Problem[] = [];
	for (const [name, problems] of [
		["license", licenseProblems],
		["base_model", baseModelProblems],
		["language", languageProblems],
		["model-index", modelIndexProblems],
	] as const) {
		if (name in data) errors.push(...problems(data[name]));
	}
	for (const [name, rule] of Object.entries(SHAPES)) {
		if (!(name in data)) continue;
		const checked = rule.safeParse(data[name]);
		if (!checked.success) errors.push({ message: `"${name}" ${checked.error.issues[0]?.message ?? "is invalid"}` });
	}
	return { errors, warnings: [] };
}
