const SHOWN = 12;

/** The tag of what was published of a commit: `source-` and the commit, then `-2` and so on for what came later. */
export function publicationTag(sourceSha: string, number: number): string {
	return `source-${sourceSha.slice(0, SHOWN)}${number === 1 ? "" : `-${number}`}`;
}
