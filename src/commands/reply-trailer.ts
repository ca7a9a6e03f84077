import { z } from "zod";

/**
 * The machine-readable last line of every answer. By it a handler that runs again finds the answer it gave before a
 * crash, an edited comment runs only what is new, and other programs can read what became of a request.
 */
const ReplyTrailer = z.object({
	v: z.literal(1),
	/** The comment that is answered. */
	comment: z.string().max(100),
	/** The newest request that it led to; `null` when it asked for nothing. */
	request: z.string().max(100).nullable(),
	state: z.string().max(40),
	/** Keys of the commands that were run or answered. */
	ran: z.array(z.string().max(40)).max(100).default([]),
	/** Keys of those that wait for somebody's approval. */
	waiting: z.array(z.string().max(40)).max(100).default([]),
});
export type ReplyTrailer = z.infer<typeof ReplyTrailer>;

const PATTERN = /<!-- yaqa-bot: (\{[^\n]{1,6000}\}) -->\s*$/;

export function writeTrailer(trailer: ReplyTrailer): string {
	// "-->" inside a value would end the comment early.
	return `<!-- yaqa-bot: ${JSON.stringify(trailer).replaceAll(">", "\\u003e").replaceAll("--", "\\u002d\\u002d")} -->`;
}

export function readTrailer(markdown: string): ReplyTrailer | null {
	const text = PATTERN.exec(markdown)?.[1];
	if (text === undefined) return null;
	try {
		const parsed = ReplyTrailer.safeParse(JSON.parse(text));
		return parsed.success ? parsed.data : null;
	} catch {
		return null;
	}
}
