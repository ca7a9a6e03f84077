import { setTimeout as sleep } from "node:timers/promises";
import type { Clock } from "../clock.ts";
import type { Configuration } from "../config/schema.ts";
import type { Secrets } from "../config/secrets.ts";
import type { StoreDelivery } from "../deliveries/store-delivery.ts";
import { RetryableError } from "../errors.ts";
import type { Log } from "../log.ts";
import { publisherAccess } from "./hub-access.ts";
import { issueRepos } from "./issue-answers.ts";
import { pollIssues } from "./poll-issues.ts";
import { pollMentions } from "./poll-mentions.ts";
import { type LeftOut, registerWebhook } from "./register-webhook.ts";

const RETRY_SECONDS = [5, 30, 120, 600] as const;
const CHECK_SECONDS = 600;
/** Names that the Hub refused are tried again once an hour. */
const ASK_AGAIN_ROUNDS = 6;

type Situation = {
	readonly configuration: Configuration;
	readonly secrets: Secrets;
	readonly log: Log;
	readonly signal: AbortSignal;
};

async function pause(seconds: number, signal: AbortSignal): Promise<void> {
	await sleep(seconds * 1000, undefined, { signal, ref: false }).catch(() => {});
}

/**
 * Tells the Hub where to deliver, and looks every ten minutes whether that still stands: the Hub suspends webhooks after
 * failures, and people change or delete them. The Hub may be down when we start.
 */
export async function keepWebhook(situation: Situation & { readonly publicUrl: string }): Promise<void> {
	const { configuration, secrets, publicUrl, log, signal } = situation;
	const secret = secrets.webhookSecret;
	if (secret === null) return;
	const hub = publisherAccess(configuration, secrets);
	const types: NonNullable<Parameters<typeof registerWebhook>[0]["types"]> = new Map();
	let refusedBefore: readonly LeftOut[] = [];
	let told = "";
	let failures = 0;
	let renewSecret = true;
	for (let round = 0; !signal.aborted; round++) {
		try {
			if (round % ASK_AGAIN_ROUNDS === 0) refusedBefore = [];
			const { watch } = configuration;
			const options = { hub, publicUrl, secret, watch, renewSecret, types, refusedBefore };
			const { outcome, leftOut } = await registerWebhook(options);
			refusedBefore = leftOut;
			if (outcome !== "unchanged" && outcome !== "nothing-watched") {
				const address = `${publicUrl}/webhooks/hub`;
				if (renewSecret) log.info("The Hub's webhook is set up", { outcome, address });
				else if (leftOut.length === 0)
					log.warn("The Hub's webhook had been changed or suspended and was mended", { outcome, address });
			}
			const missing = leftOut.map(({ name, reason }) => `${name}: ${reason}`).join("; ");
			if (missing !== told && missing !== "") {
				log.warn("Names that are watched are not in the Hub's webhook: their pushes are found by the sweep", {
					names: missing.slice(0, 2000),
				});
			}
			told = missing;
			failures = 0;
			renewSecret = false;
			await pause(CHECK_SECONDS, signal);
		} catch (error) {
			log.warn("The Hub's webhook could not be set up", { error });
			if (!(error instanceof RetryableError) && renewSecret) return;
			await pause(RETRY_SECONDS[Math.min(failures, RETRY_SECONDS.length - 1)] ?? CHECK_SECONDS, signal);
			failures++;
		}
	}
}

const LOOK_BACK_SECONDS = 86_400;

/**
 * Looks over the issues of the configured GitHub repos for commands that no webhook reported: GitHub does not deliver
 * again by itself, and cannot deliver at all without a public address.
 */
export async function keepLookingOverIssues(
	situation: Situation & { readonly storeDelivery: StoreDelivery; readonly clock: Clock },
): Promise<void> {
	const { configuration, secrets, log, signal, storeDelivery, clock } = situation;
	const repos = issueRepos(configuration, secrets);
	if (repos === null) return;
	const { pollSeconds, github } = configuration.requests;
	const isTold = configuration.server.publicUrl !== null && secrets.gitHubWebhookSecret !== null;
	if (!isTold && pollSeconds === 0) return;
	const botName = github.mention ?? configuration.hub.mention;
	const since = new Map<string, Date>();
	let failures = 0;
	while (!signal.aborted) {
		let failed = false;
		for (const [name, access] of repos.access) {
			try {
				const from = since.get(name) ?? new Date(clock.now().getTime() - LOOK_BACK_SECONDS * 1000);
				const found = await pollIssues({ github: access, botName, since: from, storeDelivery, clock });
				since.set(name, found.until);
				if (found.stored > 0)
					log.info("Comments were found in GitHub issues", { repository: name, stored: found.stored });
			} catch (error) {
				failed = true;
				log.warn("The issues of a GitHub repo could not be looked over", { repository: name, error });
			}
		}
		failures = failed ? failures + 1 : 0;
		const usual = isTold ? CHECK_SECONDS : pollSeconds;
		await pause(Math.min(3600, usual * 2 ** Math.min(failures, 6)), signal);
	}
}

/** Reads the bot's notifications for commands, where the Hub has no address to call. */
export async function keepPolling(
	situation: Situation & { readonly storeDelivery: StoreDelivery; readonly clock: Clock },
): Promise<void> {
	const { configuration, secrets, log, signal, storeDelivery, clock } = situation;
	const { pollSeconds, comments } = configuration.requests;
	if (!comments || pollSeconds === 0) return;
	const hub = publisherAccess(configuration, secrets);
	let failures = 0;
	while (!signal.aborted) {
		try {
			const found = await pollMentions({ hub, botName: configuration.hub.mention, storeDelivery, clock });
			if (found.stored > 0) log.info("Comments were found by their notifications", found);
			failures = 0;
		} catch (error) {
			failures++;
			log.warn("The bot's notifications could not be read", { error });
		}
		// `RetryableError`s have waited as the Hub asked; what goes on failing is asked ever less often.
		await pause(Math.min(3600, pollSeconds * 2 ** Math.min(failures, 6)), signal);
	}
}
