import type { LocalHubUser } from "../../src/local-hub/accounts.ts";

/** Who is on the Hub that clients are tried on; `hub.js` and its token are those of the JavaScript client's own specs. */
export const PEOPLE = [
	{ name: "ann", token: "hf_ann", orgs: [{ name: "lab", role: "admin" }] },
	{ name: "bob", token: "hf_bob" },
	{ name: "hub.js", token: "hf_hub.js" },
] as const satisfies readonly LocalHubUser[];

export function hubEnvironment(hubUrl: string, home: string): Record<string, string> {
	return {
		HF_ENDPOINT: hubUrl,
		HF_TOKEN: "hf_ann",
		BOB_TOKEN: "hf_bob",
		HF_HOME: home,
		HOME: home,
		HF_HUB_DISABLE_PROGRESS_BARS: "1",
		HF_HUB_DISABLE_TELEMETRY: "1",
		HF_HUB_DISABLE_UPDATE_CHECK: "1",
		NO_COLOR: "1",
	};
}
