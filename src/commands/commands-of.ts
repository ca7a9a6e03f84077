import type { AnswerOptions } from "./answer-options.ts";
import type { Comment } from "./forum.ts";
import type { ParsedCommand } from "./parse/parsed-command.ts";
import { parseComment } from "./parse-comment.ts";

const MAXIMUM_INVALID = 5;

/** The commands of a comment that count. `usual`: the model that its thread is about. */
export function commandsOf(
	options: Pick<AnswerOptions, "context" | "defaultRecipes">,
	comment: Comment,
	usual: string | null,
): readonly ParsedCommand[] {
	const commands = parseComment(comment.text, {
		botName: options.context.botName,
		defaultRecipes: (model) => options.defaultRecipes(model ?? usual ?? ""),
	});
	// The same line twice asks once.
	const unique = [...new Map(commands.map((command) => [command.key, command])).values()];
	let misread = 0;
	return unique.filter((command) => command.kind !== "invalid" || ++misread <= MAXIMUM_INVALID);
}
