import type { Log } from "../log.ts";
import type { LocalHubOrganization, LocalHubUser } from "./accounts.ts";
import type { FaultPlan } from "./faults.ts";
import type { LocalHubOAuthApp } from "./oauth/oauth-apps.ts";
import { type LocalHub, startLocalHub } from "./start-local-hub.ts";

/**
 * Who exists on a Hub that was started for trying things out: an owner, the bot, and a stranger with no rights.
 * The tokens are no secrets; a Hub that others can reach needs users of its own.
 */
const DEMO_USERS: readonly LocalHubUser[] = [
	{ name: "demo", token: "hf_demo_owner", fullname: "Demo Owner", orgs: [{ name: "demo-org", role: "admin" }] },
	{ name: "yaqa-bot", token: "hf_demo_yaqa_bot", fullname: "YAQA Bot", orgs: [{ name: "demo-org", role: "write" }] },
	{ name: "visitor", token: "hf_demo_visitor", fullname: "A Visitor" },
];

/** Starts a local Hub, says how to use it, and keeps it up until the signal. */
export async function runLocalHub(options: {
	dataDirectory: string;
	port: number;
	host?: string;
	users?: readonly LocalHubUser[];
	organizations?: readonly LocalHubOrganization[];
	oauthApps?: readonly LocalHubOAuthApp[];
	/** Where the programs are that jobs call; `null`: this Hub runs no jobs. */
	jobFolders?: readonly string[] | null;
	faults?: FaultPlan;
	legacyNames?: Readonly<Record<string, string>>;
	/** Large files come from another host, as the Hub's do. */
	cdn?: boolean;
	log: Log;
	/** Where the lines for people go. */
	print: (line: string) => void;
	signal: AbortSignal;
	onStarted?: (hub: LocalHub) => void;
}): Promise<void> {
	const users = options.users ?? DEMO_USERS;
	const host = options.host ?? "127.0.0.1";
	const hub = await startLocalHub({
		dataDirectory: options.dataDirectory,
		port: options.port,
		host,
		users,
		...(options.organizations === undefined ? {} : { organizations: options.organizations }),
		...(options.oauthApps === undefined ? {} : { oauthApps: options.oauthApps }),
		...(options.jobFolders ? { jobs: { programFolders: options.jobFolders } } : {}),
		...(options.faults === undefined ? {} : { initialFaults: options.faults }),
		...(options.legacyNames === undefined ? {} : { legacyNames: options.legacyNames }),
		...(options.cdn === undefined ? {} : { cdn: options.cdn }),
		log: options.log,
	});
	const { print } = options;
	print(`Local Hub at ${hub.url}`);
	print(`Data in ${options.dataDirectory}`);
	print(`How to use it: ${hub.url}/__local-hub`);
	print("");
	const width = Math.max(...users.map((user) => user.name.length));
	for (const user of users) {
		const orgs = (user.orgs ?? []).map((org) => `${org.role} in ${org.name}`).join(", ");
		// of its own users it prints the name alone: their tokens may be real ones
		const token = options.users === undefined ? user.token : "token as configured";
		print(`  ${user.name.padEnd(width)}  ${token}${orgs === "" ? "" : `  (${orgs})`}`);
	}
	print("");
	print(`  Python and the hf command:  export HF_ENDPOINT=${hub.url} HF_TOKEN=<token>`);
	print(`  @huggingface/hub:           pass hubUrl: "${hub.url}" and accessToken to each call`);
	print(`  Fault switches:             POST ${hub.url}/__local-hub/faults  Authorization: Bearer ${hub.adminToken}`);
	if (host !== "127.0.0.1" && host !== "localhost" && options.users === undefined)
		print("  Others can reach this address, and the tokens above are public: give it users of its own.");
	options.onStarted?.(hub);
	await new Promise<void>((resolve) => {
		if (options.signal.aborted) resolve();
		options.signal.addEventListener("abort", () => resolve(), { once: true });
	});
	await hub.close();
}
