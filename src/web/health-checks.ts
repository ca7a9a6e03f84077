import type { Clock } from "../clock.ts";
import { inTime } from "./in-time.ts";

export type HealthCheck = { readonly name: string; readonly check: () => Promise<void>; readonly cacheSeconds: number };

type HealthReport = {
	readonly ready: boolean;
	readonly checks: readonly { readonly name: string; readonly ok: boolean; readonly detail: string }[];
};

const LIMIT_MILLISECONDS = 5_000;

/** Runs the checks, each at most once in its `cacheSeconds`: a probe must not become load on the Hub. */
export function createHealth(checks: readonly HealthCheck[], clock: Clock): () => Promise<HealthReport> {
	const cache = new Map<string, { readonly at: number; readonly result: Promise<string | null> }>();

	function outcome(check: HealthCheck): Promise<string | null> {
		const now = clock.now().getTime();
		const before = cache.get(check.name);
		if (before !== undefined && now - before.at < check.cacheSeconds * 1000) return before.result;
		const result = inTime(
			check.check(),
			LIMIT_MILLISECONDS,
			() => new Error(`No answer within ${LIMIT_MILLISECONDS / 1000} s.`),
		).then(
			() => null,
			(error: unknown) => (error instanceof Error ? error.message.slice(0, 300) : "failed"),
		);
		cache.set(check.name, { at: now, result });
		return result;
	}

	return async () => {
		const results = await Promise.all(
			checks.map(async (check) => {
				const problem = await outcome(check);
				return { name: check.name, ok: problem === null, detail: problem ?? "ok" };
			}),
		);
		return { ready: results.every((result) => result.ok), checks: results };
	};
}
