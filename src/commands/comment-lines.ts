import type { Nodes } from "mdast";
import { fromMarkdown } from "mdast-util-from-markdown";
import { gfmFromMarkdown } from "mdast-util-gfm";
import { gfm } from "micromark-extension-gfm";
import { MAXIMUM_COMMENT_CHARACTERS } from "../hub/discussion.ts";

/** Stands where code, a link or HTML was, so that a command around it is seen to be incomplete instead of being run. */
export const REMOVED = "\uFFFC";

/**
 * The Markdown parser's time grows with the square of line length, nesting, lines, open brackets and marks that may pair
 * (8.7 s measured for 16,000 lines of "[a]", 9 s for 63 kB of "~~a"). A line beyond the first two is not a request to a
 * bot and is left out but for its beginning; beyond the others the rest of the comment is not read.
 */
const MAXIMUM_LINE_CHARACTERS = 1_000;
const MAXIMUM_NESTING = 20;
const MAXIMUM_LINES = 1_000;
const MAXIMUM_BRACKETS = 1_000;
/** Every mark that the parser may look for the partner of. */
const MAXIMUM_MARKS = 2_000;
const MARKS = /[~*_`<!|:@$\\&]/g;
const NESTING = /^[\s>*+\-\d.)]*/;

function isReasonable(line: string): boolean {
	if (line.length > MAXIMUM_LINE_CHARACTERS) return false;
	const prefix = NESTING.exec(line)?.[0] ?? "";
	return prefix.replaceAll(/\s/g, "").length <= MAXIMUM_NESTING && prefix.length <= 4 * MAXIMUM_NESTING;
}

/** How a block begins that the next lines may belong to: a fence, HTML. */
const BLOCK_START = /^(?:`{3,20}|~{3,20}|<[!?/]?[A-Za-z[-]{0,20})/;

/**
 * What stays of an unreasonable line. Its beginning says what the lines after it are: without it, quoted text or code
 * would become a person's own words.
 */
function beginningOf(line: string): string {
	const prefix = NESTING.exec(line)?.[0] ?? "";
	let marks = 0;
	let end = 0;
	while (end < prefix.length && end < 4 * MAXIMUM_NESTING && marks < MAXIMUM_NESTING) {
		if (/\S/.test(prefix.charAt(end))) marks++;
		end++;
	}
	const start = BLOCK_START.exec(line.slice(prefix.length))?.[0] ?? "";
	return `${prefix.slice(0, end)}${start}${start === "" ? "" : " "}${REMOVED}`;
}

function boundedSource(markdown: string): string {
	const lines: string[] = [];
	let brackets = 0;
	let marks = 0;
	for (const line of markdown.split(/\r\n|\n|\r/)) {
		if (lines.length === MAXIMUM_LINES) break;
		const kept = isReasonable(line) ? line : beginningOf(line);
		brackets += kept.split("[").length - 1;
		marks += kept.match(MARKS)?.length ?? 0;
		if (brackets > MAXIMUM_BRACKETS || marks > MAXIMUM_MARKS) break;
		lines.push(kept);
	}
	return lines.join("\n");
}

/**
 * The text that a person wrote as plain prose: paragraphs and list items, one entry a line.
 * Block quotes, code, headings, HTML, tables, footnotes, struck-through text, links and images are not the person's
 * request: a quoted command must not run again.
 */
export function commentLines(markdown: string): readonly string[] {
	if (markdown.length > MAXIMUM_COMMENT_CHARACTERS) return [];
	const source = boundedSource(markdown);
	const tree = fromMarkdown(source, { extensions: [gfm()], mdastExtensions: [gfmFromMarkdown()] });
	const lines: string[] = [];
	let paragraph = "";
	// A stack of our own: nested lists of a hostile comment must not exhaust the call stack.
	const stack: (Nodes | "paragraph-end")[] = [tree];
	for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
		if (node === "paragraph-end") {
			lines.push(...paragraph.split("\n"));
			paragraph = "";
			continue;
		}
		switch (node.type) {
			case "paragraph":
				stack.push("paragraph-end");
				pushChildren(stack, node.children);
				break;
			case "heading":
				// A line of dashes below a command (a rule, a mail signature) makes it a heading. It is a person's request all
				// the same; what was written as a heading begins with its marks.
				if (source.charAt(node.position?.start.offset ?? 0) === "#") break;
				stack.push("paragraph-end");
				pushChildren(stack, node.children);
				break;
			case "root":
			case "list":
			case "listItem":
			case "strong":
			case "emphasis":
				pushChildren(stack, node.children);
				break;
			case "text":
				paragraph += node.value;
				break;
			case "break":
				paragraph += "\n";
				break;
			case "inlineCode":
			case "link":
			case "linkReference":
			case "image":
			case "imageReference":
			case "delete":
			case "html":
			case "footnoteReference":
				paragraph += REMOVED;
				break;
			default:
				break;
		}
	}
	return lines.map((line) => line.trim()).filter((line) => line.length > 0 && line !== REMOVED);
}

function pushChildren(stack: (Nodes | "paragraph-end")[], children: readonly Nodes[]): void {
	for (let index = children.length - 1; index >= 0; index--) {
		const child = children[index];
		if (child !== undefined) stack.push(child);
	}
}
