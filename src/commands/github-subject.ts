import type { AnswerOptions, Subject } from "./answer-options.ts";
import type { Place, Thread } from "./forum.ts";

const NAME = String.raw`[A-Za-z0-9][A-Za-z0-9._-]{0,95}\/[A-Za-z0-9][A-Za-z0-9._-]{0,95}`;
const IN_TITLE = new RegExp(String.raw`(?:^|[\s"'(\[:])(${NAME})(?=$|[\s"')\],:;!?])`, "g");
/** A line of its own. No part of it reaches over a line's end: over many empty lines that took the square of their number. */
const IN_BODY = new RegExp(
	String.raw`^[ \t]*(?:[-*][ \t]*)?\**model\**[ \t]*:\**[ \t]*(?:https?:\/\/\S{1,200}?\/)??(${NAME})[ \t]*$`,
	"i",
);
const MAXIMUM_LINE_CHARACTERS = 500;
/** An issue's opening message names its model near the top, or not at all. */
const MAXIMUM_READ_CHARACTERS = 20_000;

/** Models that an issue seems to be about, the likeliest first. */
export function namedInIssue(thread: {
	readonly title?: string | null;
	readonly comments: readonly { readonly text: string }[];
}): readonly string[] {
	const title = [...(thread.title ?? "").slice(0, 500).matchAll(IN_TITLE)];
	const body = (thread.comments[0]?.text ?? "")
		.slice(0, MAXIMUM_READ_CHARACTERS)
		.split(/\r\n|\n|\r/)
		.filter((line) => line.length <= MAXIMUM_LINE_CHARACTERS)
		.flatMap((line) => {
			const found = IN_BODY.exec(line);
			return found === null ? [] : [found];
		});
	const names = [...body, ...title].flatMap(([, name]) => (name === undefined ? [] : [name.replace(/[.]+$/, "")]));
	return [...new Set(names)].slice(0, 10);
}

/**
 * In a GitHub issue, the line says which model it is about, else the issue does, else the operator's configuration. Only
 * models that the bot watches and that everybody may see: an issue's readers are not those of a private model.
 */
export function gitHubSubject(options: {
	/** The model that the issues of a repo are usually about. */
	readonly usualModel: (repository: string) => string | null;
	readonly isWatched: (model: string) => boolean;
	readonly isPublic: (model: string) => Promise<boolean>;
}): AnswerOptions["subjectOf"] {
	const { usualModel, isWatched, isPublic } = options;

	async function checked(model: string, usual: boolean): Promise<Subject> {
		if (!isWatched(model)) {
			return {
				ok: false,
				message: `${model} is not among the models that this bot looks after.`,
				remedy: "The operator of this bot can add it with “yaqa-bot watch add”.",
			};
		}
		if (!(await isPublic(model))) {
			return {
				ok: false,
				message: `I see no public model ${model} on the Hub.`,
				remedy: "Check the name. A private model is asked for in a discussion of its own repo.",
			};
		}
		return { ok: true, repo: model, usual };
	}

	return async (named, place: Place, thread: Thread) => {
		const usual =
			namedInIssue(thread).find((name) => isWatched(name)) ?? usualModel(place.repo) ?? namedInIssue(thread)[0] ?? null;
		const model = named ?? usual;
		if (model !== null) return await checked(model, model === usual);
		return {
			ok: false,
			message: "I do not know which model this is about.",
			remedy:
				"Name it in the line, such as “quantize 8bit gguf owner/model”, or in the issue, as a line “Model: owner/model”.",
		};
	};
}
