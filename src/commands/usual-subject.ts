import type { AnswerOptions } from "./answer-options.ts";
import type { Place, Thread } from "./forum.ts";

/** The model that the thread is about, for reading short forms and for leaving out its name; `null`: none. */
export async function usualSubject(
	options: Pick<AnswerOptions, "subjectOf">,
	place: Place,
	thread: Thread,
): Promise<string | null> {
	const subject = await options.subjectOf(null, place, thread);
	return subject.ok ? subject.repo : null;
}
