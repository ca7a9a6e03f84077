/** Finds a text anywhere, as it stands. */
export function likePattern(search: string): string {
	return `%${search.slice(0, 200).replaceAll(/[\\%_]/g, "\\$&")}%`;
}
