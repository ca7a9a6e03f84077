import { type ReplyTrailer, readTrailer, writeTrailer } from "./reply-trailer.ts";

/** The part of an answer that one command led to. */
export type Section = {
	/** The command's key. */
	readonly key: string;
	/** The request whose job brings this part up to date. */
	readonly request: string | null;
	/** Whether it stays when the comment is edited and the line is gone: it did something that is not undone by that. */
	readonly lasting: boolean;
	readonly text: string;
};

type AnswerText = { readonly sections: readonly Section[]; readonly trailer: ReplyTrailer };

const BEGIN = /^<!-- yaqa-bot part ([a-z0-9]{1,40}) ([a-f0-9-]{1,40}) (lasting|passing) -->$/;
const END = "<!-- yaqa-bot end of part -->";

/** Below what the Hub takes, with room for markers and trailer. */
export const MAXIMUM_ANSWER_CHARACTERS = 50_000;
const MAXIMUM_SECTION_CHARACTERS = 16_000;

/** Cut at a line's end, so that no table row, link or code is left half. */
function cut(text: string, limit: number): string {
	if (text.length <= limit) return text;
	const end = text.lastIndexOf("\n", limit);
	return `${end > 0 ? text.slice(0, end) : ""}\n\n(The rest does not fit in a comment.)`.trimStart();
}

/** Markers stand on lines of their own, and no text from outside can hold one: it is escaped where it is rendered. */
export function writeAnswer(answer: AnswerText): string {
	const parts: string[] = [];
	let length = 0;
	for (const section of answer.sections) {
		const text = cut(section.text, MAXIMUM_SECTION_CHARACTERS);
		length += text.length;
		if (length > MAXIMUM_ANSWER_CHARACTERS) {
			parts.push("(The rest does not fit in a comment.)");
			break;
		}
		const begin = `<!-- yaqa-bot part ${section.key} ${section.request ?? "-"} ${section.lasting ? "lasting" : "passing"} -->`;
		parts.push(`${begin}\n${text}\n${END}`);
	}
	return `${parts.join("\n\n")}\n\n${writeTrailer(answer.trailer)}`;
}

/** `null`: not an answer of ours. */
export function readAnswer(markdown: string): AnswerText | null {
	const trailer = readTrailer(markdown);
	if (trailer === null) return null;
	const sections: Section[] = [];
	let open: { key: string; request: string | null; lasting: boolean; lines: string[] } | null = null;
	for (const line of markdown.split(/\r?\n/)) {
		const begin = BEGIN.exec(line);
		if (begin !== null) {
			const [, key = "", request = "-", keep] = begin;
			open = { key, request: request === "-" ? null : request, lasting: keep === "lasting", lines: [] };
		} else if (line === END && open !== null) {
			const { lines, ...section } = open;
			sections.push({ ...section, text: lines.join("\n") });
			open = null;
		} else open?.lines.push(line);
	}
	return { sections, trailer };
}
