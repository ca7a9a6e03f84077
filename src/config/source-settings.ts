import { parseDocument } from "yaml";
import { z } from "zod";
import { parseRecipe } from "../protocol/recipe.ts";

/** The file by which the owner of a source repo has the last word on what is made of it. */
export const SOURCE_SETTINGS_FILE = ".yaqa-bot.yaml";
export const MAXIMUM_SOURCE_SETTINGS_BYTES = 16 * 1024;

const SourceSettings = z.strictObject({
	enabled: z.boolean().default(true).describe("false: pushes are left alone; requests by the owner still run."),
	recipes: z.array(z.string().min(1).max(200)).min(1).max(16).optional().describe("What is made of a push."),
});
type SourceSettings = z.infer<typeof SourceSettings>;

type ReadSettings =
	| { readonly ok: true; readonly settings: SourceSettings }
	| { readonly ok: false; readonly problems: readonly string[] };

/** Reads a stranger's file: small, without anchors that multiply, and refused with every reason at once. */
export function parseSourceSettings(text: string): ReadSettings {
	if (Buffer.byteLength(text) > MAXIMUM_SOURCE_SETTINGS_BYTES) {
		return { ok: false, problems: [`It is larger than ${MAXIMUM_SOURCE_SETTINGS_BYTES} bytes.`] };
	}
	const document = parseDocument(text, { prettyErrors: false });
	if (document.errors.length > 0) {
		return { ok: false, problems: document.errors.slice(0, 3).map((error) => `It is not YAML: ${error.message}.`) };
	}
	let value: unknown;
	try {
		value = document.toJS({ maxAliasCount: 0 });
	} catch {
		return { ok: false, problems: ["It uses YAML aliases, which are not read."] };
	}
	const parsed = SourceSettings.safeParse(value ?? {});
	if (!parsed.success) {
		return {
			ok: false,
			problems: parsed.error.issues
				.slice(0, 5)
				.map((issue) => `${issue.path.length === 0 ? "The file" : issue.path.join(".")}: ${issue.message}.`),
		};
	}
	const problems = (parsed.data.recipes ?? []).flatMap((recipe) => {
		const known = parseRecipe(recipe);
		if (known.ok) return [];
		const { message, suggestion } = known.refusal;
		return [`${message}${suggestion === null ? "" : ` Did you mean "${suggestion}"?`}`];
	});
	return problems.length > 0 ? { ok: false, problems } : { ok: true, settings: parsed.data };
}
