import type { LocalHub } from "../../src/local-hub/start-local-hub.ts";

/** Numbers in [0, 1), the same for the same seed: mulberry32. */
export function seededNumbers(seed: number): () => number {
	let state = seed;
	return () => {
		state = (state + 0x6d2b79f5) | 0;
		let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
		mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
		return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
	};
}

export function oneOf<T>(random: () => number, values: readonly T[]): T {
	const value = values[Math.floor(random() * values.length)];
	if (value === undefined) throw new Error("There is nothing to choose from.");
	return value;
}

/** What the bot asks of a Hub; owners' pushes go by other routes. */
const ROUTES = [
	"/api/repos/create",
	"/api/models/bot/",
	"/api/models/bot/[^/]+/(commit|preupload)/",
	"/api/models/bot/[^/]+/settings",
	"/bot/[^/]+/resolve/",
	"/api/models/lab/[^/]+/(revision|tree|refs)",
	"/api/models/lab/[^/]+/discussions",
	"/lab/[^/]+/resolve/",
	"/api/models\\?",
	"info/lfs/objects/batch",
] as const;
const FAULTS = [
	{ kind: "status", status: 500 },
	{ kind: "status", status: 502 },
	{ kind: "status", status: 503 },
	{ kind: "status", status: 504 },
	{ kind: "status", status: 429, retryAfterSeconds: 1 },
	{ kind: "status", status: 429 },
	{ kind: "status-after", status: 500 },
	{ kind: "disconnect" },
	{ kind: "disconnect-after" },
	{ kind: "slow", delayMilliseconds: 2500 },
	{ kind: "truncated" },
	{ kind: "wrong" },
] as const;

/** How many faults of the routes that are armed have struck. */
function struck(hub: LocalHub): number {
	const { routes } = hub.faults.state();
	if (!Array.isArray(routes)) return 0;
	return routes.reduce((sum: number, { times, left }: { times: number; left: number }) => sum + times - left, 0);
}

/** Bad weather on a Hub, another one at every `change`; `clear` ends it. Counts what has struck. */
export function weatherOf(hub: LocalHub, random: () => number) {
	let counted = 0;
	return {
		change(): void {
			counted += struck(hub);
			const routes = Array.from({ length: 3 }, () => ({
				path: oneOf(random, ROUTES),
				times: 1 + Math.floor(random() * 3),
				...oneOf(random, FAULTS),
			}));
			hub.faults.set({
				routes,
				dropWebhooks: random() < 0.2 ? 1 : 0,
				duplicateWebhooks: random() < 0.3 ? 2 : 0,
			});
		},
		clear(): void {
			counted += struck(hub);
			hub.faults.clear();
		},
		faults: () => counted,
	};
}
