import type { Configuration } from "../config/schema.ts";
import { parsedRecipes, type Recipe } from "../protocol/recipe.ts";
import type { HubWord } from "../records/source.ts";

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

type WatchCheck = { readonly watched: true } | { readonly watched: false; readonly reason: string };

/** Whether pushes to a repo are ours to act on, by its name alone. */
export function checkRepo(watch: Watch, repo: string): WatchCheck {
	const excluded = watch.exclude.find((glob) => matchesGlob(glob, repo));
	if (excluded !== undefined) return { watched: false, reason: `It is excluded by watch.exclude: ${excluded}.` };
	const [namespace = ""] = repo.split("/");
	if (watch.repos.includes(repo) || watch.namespaces.includes(namespace)) return { watched: true };
	return { watched: false, reason: "It is not watched." };
}

function ruleOf(watch: Watch, repo: string): Watch["rules"][number] | undefined {
	return watch.rules.find((candidate) => matchesGlob(candidate.match, repo));
}

/** What is made of a push to a repo. The configuration was checked, so that every text parses. */
export function recipesOfRules(watch: Watch, repo: string): readonly Recipe[] {
	return parsedRecipes(ruleOf(watch, repo)?.recipes ?? watch.recipes);
}

export function maximumParameters(watch: Watch, repo: string): number {
	return Math.min(watch.maxParameters, ruleOf(watch, repo)?.maxParameters ?? watch.maxParameters);
}

function minutesOf(time: string): number {
	const [hours = "0", minutes = "0"] = time.split(":");
	return Number(hours) * 60 + Number(minutes);
}

/** Whether pushes to a repo are taken up at this time of the day (UTC). */
export function checkHours(watch: Watch, repo: string, now: Date): WatchCheck {
	const hours = ruleOf(watch, repo)?.hours;
	if (hours === undefined) return { watched: true };
	const [from = 0, to = 0] = hours.split("-").map(minutesOf);
	const minute = now.getUTCHours() * 60 + now.getUTCMinutes();
	const within = from <= to ? minute >= from && minute < to : minute >= from || minute < to;
	return within ? { watched: true } : { watched: false, reason: `It waits for its hours, ${hours} UTC.` };
}

/** Whether a rule lets pushes to the model be quantized, by what the Hub tells of it. */
export function checkToldKind(watch: Watch, repo: string, told: HubWord): WatchCheck {
	const rule = ruleOf(watch, repo);
	const { any, none } = rule?.tags ?? { any: [], none: [] };
	const unwanted = none.find((tag) => told.tags.includes(tag));
	if (unwanted !== undefined) return { watched: false, reason: `It has the tag "${unwanted}".` };
	const wanted = [
		["tags", any, told.tags],
		["pipeline tags", rule?.pipelineTags ?? [], told.pipelineTag === null ? [] : [told.pipelineTag]],
		["architectures", rule?.architectures ?? [], told.architectures],
	] as const;
	const lacking = wanted.find(([, listed, has]) => listed.length > 0 && !listed.some((one) => has.includes(one)));
	if (lacking === undefined) return { watched: true };
	return { watched: false, reason: `It has none of the ${lacking[0]} ${lacking[1].join(", ")}.` };
}
