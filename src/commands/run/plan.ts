import { parsedRecipes } from "../../protocol/recipe.ts";
import { renderPlan } from "../replies/render-plan.ts";
import { renderRefusal } from "../replies/render-refusal.ts";
import type { CommandRun } from "./effect.ts";
import { optionRefusal } from "./option-refusal.ts";

/** What `quantize` would do; nothing is recorded. */
export async function plan({ command, options, source, context }: CommandRun<"plan">): Promise<string> {
	const refused = optionRefusal(command, options.calibration);
	if (refused !== null) return renderRefusal(refused);
	const preview = await options.previewRequest({
		sourceRepo: source,
		...(command.revision === null ? {} : { revision: command.revision }),
		recipes: parsedRecipes(command.recipes),
	});
	if (!preview.ok) return renderRefusal(preview.refusal);
	const asked = [
		"quantize",
		...command.recipes,
		...(command.revision === null ? [] : [`revision=${command.revision}`]),
	];
	return renderPlan(context, preview, asked.join(" "));
}
