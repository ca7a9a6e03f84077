/** Enough of a commit's hash to tell a repo's commits apart. */
const COMMIT_CHARACTERS = 12;

/** How the names of repos end that hold one commit's variants; both JavaScript and PostgreSQL read it. */
export const ONE_COMMIT_PATTERN = `-at-[0-9a-f]{${COMMIT_CHARACTERS}}$`;
const ONE_COMMIT = new RegExp(ONE_COMMIT_PATTERN);

/** How the name of a repo ends that holds one commit's variants, and not those of the source's main branch. */
export function commitSuffix(commit: string): string {
	return `-at-${commit.slice(0, COMMIT_CHARACTERS)}`;
}

/** Whether a repo was named for one commit of its source. */
export function isOfOneCommit(repo: string): boolean {
	return ONE_COMMIT.test(repo);
}
