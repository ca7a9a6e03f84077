import type { AnswerOptions } from "./answer-options.ts";

/** In a discussion of a model, commands are about that model. */
export const hubSubject: AnswerOptions["subjectOf"] = async (named, place) => {
	if (named === null || named.toLowerCase() === place.repo.toLowerCase()) {
		return { ok: true, repo: place.repo, usual: true };
	}
	return {
		ok: false,
		message: `Here I work on ${place.repo}, and the line names ${named}.`,
		remedy: "Leave the name out, or ask in a discussion of that repo.",
	};
};
