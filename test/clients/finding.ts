export type ClientFinding = {
	readonly check: string;
	readonly state: "passed" | "failed" | "not applicable";
	/** Why not passed. */
	readonly why: string;
};

export type Counts = { readonly passed: number; readonly failed: number; readonly notApplicable: number };

export function countsOf(findings: readonly ClientFinding[]): Counts {
	const count = (state: ClientFinding["state"]): number => findings.filter((one) => one.state === state).length;
	return { passed: count("passed"), failed: count("failed"), notApplicable: count("not applicable") };
}

export function passed(check: string): ClientFinding {
	return { check, state: "passed", why: "" };
}
export function failed(check: string, why: string): ClientFinding {
	return { check, state: "failed", why: why.slice(0, 600) };
}
export function notApplicable(check: string, why: string): ClientFinding {
	return { check, state: "not applicable", why };
}
