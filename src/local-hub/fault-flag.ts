import { type FaultPlan, faultsSchema } from "./faults.ts";

const COUNTS = [
	"dropWebhooks",
	"duplicateWebhooks",
	"vanishingJobs",
	"emptyJobs",
	"unpaidJobs",
	"uploadBytesPerSecond",
] as const;

/** What `--fault` takes, for help and pages. */
export const FAULT_FORMS = [
	...COUNTS.map((name) => `${name}=N`),
	"STATUS [METHOD] PATH [TIMES]: 503 POST /api/repos/create 2",
	"slow=SECONDS [METHOD] PATH [TIMES]: slow=20 GET /resolve/ 5",
	"disconnect [METHOD] PATH [TIMES]",
] as const;

type RouteFault = NonNullable<FaultPlan["routes"]>[number];

function routeOf(words: readonly string[]): RouteFault | null {
	const [kind = "", ...rest] = words;
	const method = /^[A-Z]{3,7}$/.test(rest[0] ?? "") ? rest.shift() : undefined;
	const [path, times = "1"] = rest;
	if (path === undefined || rest.length > 2 || !/^\d{1,6}$/.test(times)) return null;
	const route = { path, times: Number(times), ...(method === undefined ? {} : { method }) };
	if (/^[45]\d\d$/.test(kind)) return { ...route, kind: "status", status: Number(kind) };
	if (kind === "disconnect") return { ...route, kind };
	const seconds = /^slow=(\d{1,3})$/.exec(kind)?.[1];
	return seconds === undefined ? null : { ...route, kind: "slow", delayMilliseconds: Number(seconds) * 1000 };
}

/** The faults that a local Hub starts with, from its command line. Throws what is wrong with one. */
export function faultPlan(flags: readonly string[]): FaultPlan {
	const plan: Record<string, unknown> = {};
	const routes: RouteFault[] = [];
	for (const flag of flags) {
		const [, name = "", count = ""] = /^([A-Za-z]+)=(\d+)$/.exec(flag) ?? [];
		const known = COUNTS.find((one) => one === name);
		const route = known === undefined ? routeOf(flag.trim().split(/\s+/)) : null;
		if (known !== undefined) plan[known] = Number(count);
		else if (route !== null) routes.push(route);
		else throw new Error(`"${flag}" is no fault. There are: ${FAULT_FORMS.join("; ")}.`);
	}
	const parsed = faultsSchema.safeParse({ ...plan, ...(routes.length === 0 ? {} : { routes }) });
	if (!parsed.success) throw new Error(`A --fault cannot be: ${parsed.error.issues[0]?.message ?? "invalid"}.`);
	for (const { path } of parsed.data.routes ?? []) {
		try {
			new RegExp(path);
		} catch {
			throw new Error(`"${path}" is not a regular expression over paths.`);
		}
	}
	return parsed.data;
}
