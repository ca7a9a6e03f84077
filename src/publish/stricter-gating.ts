import type { RepoGating } from "../hub/update-repo-settings.ts";

const STRICTNESS: Readonly<Record<string, number>> = { false: 0, auto: 1, manual: 2 };

/** Whether readers of the first would need more than those of the second. */
export function isStricter(one: RepoGating, other: RepoGating): boolean {
	return (STRICTNESS[String(one)] ?? 2) > (STRICTNESS[String(other)] ?? 2);
}
