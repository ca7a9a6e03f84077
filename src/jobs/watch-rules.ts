import type { Configuration } from "../config/schema.ts";
import { parseRecipe, type Recipe } from "../protocol/recipe.ts";

type Watch = Configuration["watch"];

/** `*` stands for any characters but `/`; a glob without `/` is compared with the name after the namespace. */
export function matchesGlob(glob: string, repo: string): boolean {
	const subject = glob.includes("/") ? repo : repo.slice(repo.indexOf("/") + 1);
	const parts = glob.split("*");
	let position = 0;
	for (const [index, part] of parts.entries()) {
		const isLast = index === parts.length - 1;
		const found = isLast && index > 0 ? subject.length - part.length : subject.indexOf(part, position);
		if (found < position || (index === 0 && found !== 0) || !subject.startsWith(part, found)) return false;
		if (index > 0 && subject.slice(position, found).includes("/")) return false;
		position = found + part.length;
	}
	return position === subject.length;
}

export type WatchVerdict = { readonly watched: true } | { readonly watched: false; readonly reason: string };

/** Whether pushes to a repo are ours to act on, by its name alone. */
export function judgeRepo(watch: Watch, repo: string): WatchVerdict {
	const excluded = watch.exclude.find((glob) => matchesGlob(glob, repo));
	if (excluded !== undefined) return { watched: false, reason: `It is excluded by watch.exclude: ${excluded}.` };
	const [namespace = ""] = repo.split("/");
	if (watch.repos.includes(repo) || watch.namespaces.includes(namespace)) return { watched: true };
	return { watched: false, reason: "It is not watched." };
}

/** What is made of a push to a repo. The configuration was checked, so that every text parses. */
export function recipesOfRules(watch: Watch, repo: string): readonly Recipe[] {
	const rule = watch.rules.find((candidate) => matchesGlob(candidate.match, repo));
	return (rule?.recipes ?? watch.recipes).flatMap((text) => {
		const parsed = parseRecipe(text);
		return parsed.ok ? [parsed.recipe] : [];
	});
}
