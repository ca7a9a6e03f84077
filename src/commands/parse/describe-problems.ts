const SUGGESTIBLE = /^[A-Za-z0-9:=,._/ -]{1,80}$/;
const MAXIMUM_PROBLEMS = 5;

/** A word that is not known; `near`: the one that was probably meant. */
export type Problem = { readonly word: string; readonly message: string; readonly near: string | null };

/** One message for everything in a line that is not known, with the line as it was probably meant. */
export function describeProblems(
	problems: readonly Problem[],
	rest: string,
): { readonly message: string; readonly suggestion: string | null } {
	const messages = problems.slice(0, MAXIMUM_PROBLEMS).map((problem) => problem.message);
	const more = problems.length - messages.length;
	if (more > 0) messages.push(`And ${more} more.`);
	let corrected = rest;
	for (const { word, near } of problems) {
		if (near !== null) corrected = corrected.replace(new RegExp(escapeForPattern(word), "i"), () => near);
	}
	const [only] = problems;
	const near = problems.every((problem) => problem.near !== null);
	const suggestion = near && SUGGESTIBLE.test(corrected) ? corrected : (only?.near ?? null);
	const isSafe = suggestion !== null && SUGGESTIBLE.test(suggestion);
	return { message: messages.join(" "), suggestion: isSafe && (problems.length === 1 || near) ? suggestion : null };
}

function escapeForPattern(text: string): string {
	return text.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");
}
