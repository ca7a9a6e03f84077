import type { Clock } from "../../clock.ts";
import type { Log } from "../../log.ts";
import type { Person } from "../../records/person.ts";
import { inTime } from "../in-time.ts";

/** What somebody may see besides what everybody may, by the Hub's word of a few minutes ago. */
export type SeenRights = {
	readonly person: Person;
	/** Private sources that the Hub lets them read. */
	readonly reads: readonly string[];
};

export type RightsAnswer =
	| { readonly kind: "known"; readonly rights: SeenRights }
	/** The Hub no longer takes their token. */
	| { readonly kind: "revoked" }
	/** It could not be asked: nothing private is shown. */
	| { readonly kind: "unknown" };

/** Somebody waits for their page. */
const LONGEST_MILLISECONDS = 10_000;
const FRESH_SECONDS = 180;
/** After a failure the Hub is left alone for a moment. */
const FAILED_SECONDS = 10;

/** Asks the Hub in the person's own name, at most every few minutes. */
export function createRights(options: {
	readonly personOf: (accessToken: string) => Promise<Person | null>;
	readonly listPrivate: (accessToken: string, namespace: string) => Promise<readonly string[]>;
	/** The private ones among our sources in these namespaces: of others nothing is asked. */
	readonly privateSources: (namespaces: readonly string[]) => Promise<readonly string[]>;
	/** Whether the session is still there. */
	readonly isOpen: () => Promise<boolean>;
	readonly accessToken: string;
	/** The account that signed in. */
	readonly subject: string;
	readonly clock: Clock;
	readonly log: Log;
}): () => Promise<RightsAnswer> {
	const { accessToken, subject, clock, log } = options;
	let last: { readonly until: number; readonly answer: Promise<RightsAnswer> } | null = null;

	async function ask(): Promise<RightsAnswer> {
		const person = (await options.isOpen()) ? await options.personOf(accessToken) : null;
		if (person === null || person.subject !== subject) return { kind: "revoked" };
		const sources = await options.privateSources([person.name, ...person.organizations]);
		const namespaces = [...new Set(sources.map((repo) => repo.split("/")[0] ?? ""))];
		const lists = await Promise.all(namespaces.map((name) => options.listPrivate(accessToken, name)));
		const readable = new Set(lists.flat());
		return { kind: "known", rights: { person, reads: sources.filter((repo) => readable.has(repo)) } };
	}

	return () => {
		const now = clock.now().getTime();
		if (last !== null && last.until > now) return last.answer;
		const answer = inTime(ask(), LONGEST_MILLISECONDS, () => new Error("The Hub took too long.")).catch(
			(error: unknown): RightsAnswer => {
				log.warn("The Hub could not be asked what a signed-in person may read", { error });
				last = { until: clock.now().getTime() + FAILED_SECONDS * 1000, answer };
				return { kind: "unknown" };
			},
		);
		last = { until: now + FRESH_SECONDS * 1000, answer };
		return answer;
	};
}
