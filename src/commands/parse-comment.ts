import { MAXIMUM_COMMENT_CHARACTERS } from "../hub/discussion.ts";
import { commentLines } from "./comment-lines.ts";
import { parseLine } from "./parse/parse-line.ts";
import { type CommandGrammar, keyOf, type ParsedCommand, shown } from "./parse/parsed-command.ts";

export const MAXIMUM_COMMANDS = 10;

/** What follows the mention when `line` is addressed to the bot, else `null`. */
function addressed(written: string, botName: string): string | null {
	// Copied from a page or a reply, a mention may carry invisible joiners.
	const line = written.replaceAll(/[\u200B-\u200D\u2060\uFEFF]/g, "").trimStart();
	const mention = `@${botName.toLowerCase()}`;
	if (line.slice(0, mention.length).toLowerCase() !== mention) return null;
	const rest = line.slice(mention.length);
	// "@yaqa-bot2" and "@yaqa-bot-fan" are other people.
	return /^(?:$|[\s:,!?]|\.(?:\s|$))/.test(rest) ? rest.replace(/^[:,.!?]+/, "").trim() : null;
}

/** The commands of one comment, in order. Empty when nobody addressed the bot. */
export function parseComment(markdown: string, grammar: CommandGrammar): readonly ParsedCommand[] {
	if (markdown.length > MAXIMUM_COMMENT_CHARACTERS) return [];
	// Most comments never name the bot: they cost no parsing.
	if (!markdown.includes("@") || !markdown.toLowerCase().includes(grammar.botName.toLowerCase())) return [];
	const commands: ParsedCommand[] = [];
	for (const line of commentLines(markdown)) {
		const rest = addressed(line, grammar.botName);
		if (rest === null) continue;
		if (commands.length === MAXIMUM_COMMANDS) {
			commands.push({
				kind: "invalid",
				line: shown(line),
				key: keyOf("too many"),
				model: null,
				message: `I read at most ${MAXIMUM_COMMANDS} commands a comment; the rest was left out.`,
				suggestion: null,
			});
			break;
		}
		commands.push(parseLine(line, rest, grammar));
	}
	return commands;
}
