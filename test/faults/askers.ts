import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { ConfigurationInput } from "../../src/config/schema.ts";
import { type FakeGitHub, type GitHubFault, startFakeGitHub } from "../fake-github/fake-github.ts";
import { oneOf } from "./weather.ts";

const FAULTS: readonly GitHubFault[] = [
	"server-error",
	"unavailable",
	"rate-limited",
	"limited-without-time",
	"limited-by-403",
	"quota-used-up",
	"moved",
	"slow",
	"truncated",
	"wrong",
	"bad-gateway-after-accept",
];
const ISSUES = 10;

/** People who ask in the issues of a GitHub repo, while its API is at its worst and its webhooks come twice or not at all. */
export type Askers = {
	readonly requests: ConfigurationInput["requests"];
	readonly environment: Readonly<Record<string, string>>;
	/** Where webhooks go. */
	sendTo(url: string): void;
	/** One comment about a model. */
	ask(model: string): void;
	changeWeather(): void;
	clearWeather(): void;
	settle(): Promise<void>;
	faults(): number;
	/** All issues as they stand, for the auditor. */
	issues(): readonly { readonly number: number; readonly comments: ReturnType<FakeGitHub["issues"]["commentsOf"]> }[];
	/** Where the fake GitHub was asked for what GitHub's own description does not have. */
	breaches(): readonly string[];
	close(): Promise<void>;
};

export async function startAskers(folder: string, secret: string, random: () => number): Promise<Askers> {
	mkdirSync(folder, { recursive: true });
	const github = await startFakeGitHub({
		folder,
		workflowPath: join(import.meta.dirname, "../../workflows/quantize.yml"),
		path: process.env["PATH"] ?? "",
		variables: {},
		secrets: {},
	});
	const { issues, webhooks } = github;
	issues.permit("maintainer", "admin");
	const numbers = Array.from({ length: ISSUES }, (_, index) =>
		issues.open("maintainer", `Variants ${index}`, "What is there?"),
	);
	let asked = 0;
	return {
		requests: {
			github: { repositories: [{ repository: issues.repository }], appId: github.appId, apiUrl: github.url },
		},
		environment: { YAQA_BOT_GITHUB_APP_KEY: github.privateKey, YAQA_BOT_GITHUB_WEBHOOK_SECRET: secret },
		sendTo: (url) => webhooks.sendTo({ url: `${url}/webhooks/github`, secret, mode: "once" }),
		ask(model) {
			const issue = numbers[asked++ % numbers.length] ?? 1;
			const command = asked % 3 === 0 ? "quantize" : "status";
			const comment = issues.comment("maintainer", issue, `@yaqa-bot ${command} ${model}`);
			const payload = issues.payloadOf(issue, comment, "created") as object;
			const told = random();
			// One in ten is told of twice, one in ten never.
			if (told < 0.9) webhooks.emit(String(issue), "issue_comment", payload, true);
			if (told < 0.1) webhooks.emit(String(issue), "issue_comment", payload, true);
		},
		changeWeather: () => github.arm(oneOf(random, FAULTS), 1 + Math.floor(random() * 3)),
		clearWeather: () => github.disarm(),
		settle: () => webhooks.settle(),
		faults: () => github.struck(),
		issues: () => numbers.map((number) => ({ number, comments: issues.commentsOf(number) })),
		breaches: () => github.breaches,
		close: () => github.close(),
	};
}
