import { RECIPE_NAMES, RECIPES } from "../../protocol/recipe-table.ts";
import { markdownCode } from "../../publish/escape.ts";
import { COMMANDS } from "../command-table.ts";
import { nextStep, type ReplyContext } from "./reply-context.ts";

export function renderHelp(context: ReplyContext): string {
	const rows = COMMANDS.flatMap((command) =>
		command.examples.map((example) => `| \`@${context.botName} ${example.text}\` | ${example.meaning} |`),
	);
	const recipes = [...RECIPE_NAMES.map((recipe) => recipe.name), ...RECIPES.mixed.examples].map((name) =>
		markdownCode(name),
	);
	const more = context.siteUrl === null ? "" : ` [More on the help page](${context.siteUrl}/help).`;
	return [
		"**What I understand**, on a line of its own:",
		["| You write | You get |", "|---|---|", ...rows].join("\n"),
		`Recipes: ${recipes.join(", ")}.${more}`,
	].join("\n\n");
}

export function renderPing(context: ReplyContext): string {
	return `I am here and read this ${context.thread}. ${nextStep(context, "help", "What I understand")}`;
}
