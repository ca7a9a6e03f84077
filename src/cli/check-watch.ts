import type { Configuration } from "../config/schema.ts";
import type { Secrets } from "../config/secrets.ts";
import { PermanentError } from "../errors.ts";
import { enableWebhook } from "../hub/enable-webhook.ts";
import { findWatchable } from "../hub/find-watchable.ts";
import { listWebhooks } from "../hub/list-webhooks.ts";
import type { Webhook } from "../hub/webhook.ts";
import { publisherAccess, readAccess } from "../server/hub-access.ts";
import { type Finding, fine, firstLine, lacking } from "./finding.ts";

const MAXIMUM_NAMES = 50;

function plain(error: unknown): string {
	return error instanceof PermanentError ? error.refusal.message : firstLine(error);
}

/** Whether a bot answers at the address that the Hub is given; nothing where none runs yet. */
async function isReached(publicUrl: string): Promise<boolean> {
	return await fetch(`${publicUrl}/healthz`, { signal: AbortSignal.timeout(5000) })
		.then(async (response) => response.ok && (await response.text()).includes('"alive":true'))
		.catch(() => false);
}

function missingFrom(webhook: Webhook, { namespaces, repos }: Configuration["watch"]): readonly string[] {
	const covered = new Set(webhook.watched.map((item) => item.name));
	return [...namespaces, ...repos].filter((name) => !covered.has(name));
}

export async function checkWebhook(configuration: Configuration, secrets: Secrets): Promise<Finding> {
	const name = "Webhook";
	if (secrets.webhookSecret === null) {
		return lacking(
			name,
			"no secret is set: deliveries are refused, and pushes are found by the sweep alone",
			"Set YAQA_BOT_WEBHOOK_SECRET to a long random text and give the same one to the Hub's webhook.",
		);
	}
	const { publicUrl } = configuration.server;
	if (publicUrl === null) {
		return lacking(
			name,
			"the secret is set; server.publicUrl is not, so the bot cannot register itself",
			"Set server.publicUrl, or make the webhook in the Hub's settings, to ADDRESS/webhooks/hub.",
		);
	}
	if (secrets.publisherToken === null) return lacking(name, "cannot look without a token", "Set YAQA_BOT_HUB_TOKEN.");
	const access = publisherAccess(configuration, secrets);
	try {
		const ours = (await listWebhooks(access)).find((webhook) => webhook.url === `${publicUrl}/webhooks/hub`);
		if (ours === undefined) return lacking(name, "not registered yet", "`yaqa-bot serve` registers it when it starts.");
		if (ours.disabled !== false) {
			const detail = `switched off by the Hub: ${String(ours.disabled)}`;
			return lacking(name, detail, "`yaqa-bot serve` switches it on when it starts.");
		}
		// Switching on what is on changes nothing, and shows that the token may change it.
		await enableWebhook({ ...access, id: ours.id, enabled: true });
		const missing = missingFrom(ours, configuration.watch);
		if (missing.length > 0) {
			const detail = `registered, but not for ${missing.slice(0, 10).join(", ")}`;
			return lacking(name, detail, "`yaqa-bot serve` mends it when it starts, and logs what the Hub refuses.");
		}
		const detail = `registered for ${ours.watched.map((item) => item.name).join(", ")}`;
		return (await isReached(publicUrl))
			? fine(name, `${detail}; the bot answers at ${publicUrl}`)
			: lacking(
					name,
					`${detail}; no bot answers at ${publicUrl}`,
					"Start the bot; if it runs, look at the proxy: the Hub has to reach that address.",
				);
	} catch (error) {
		return lacking(name, plain(error), "Check hub.url and the token's rights.");
	}
}

/** Whether the Hub has what is watched, as the token that reads sources sees it. */
export async function checkWatch(configuration: Configuration, secrets: Secrets): Promise<readonly Finding[]> {
	const title = "Watch rules";
	const { namespaces, repos } = configuration.watch;
	const names = [...namespaces, ...repos];
	if (names.length === 0) {
		return [lacking(title, "nothing is watched", "Name users, organisations or repos under `watch`.")];
	}
	const access = readAccess(configuration, secrets);
	const findings: Finding[] = [];
	try {
		for (const name of names.slice(0, MAXIMUM_NAMES)) {
			const found = await findWatchable({ ...access, name });
			if (found === null) {
				const remedy = name.includes("/")
					? `\`yaqa-bot watch remove ${name}\`, or give YAQA_BOT_READ_TOKEN the right to read it.`
					: `\`yaqa-bot watch remove ${name}\`, or correct the name.`;
				findings.push(lacking(title, `the Hub shows nothing called ${name}`, remedy));
			} else if (found.name !== name) {
				const remedy = `\`yaqa-bot watch remove ${name}\`, then \`yaqa-bot watch add ${found.name}\`.`;
				findings.push(lacking(title, `${name} is called ${found.name} now`, remedy));
			}
		}
	} catch (error) {
		return [...findings, lacking(title, plain(error), "Check hub.url and the network.")];
	}
	if (findings.length > 0) return findings;
	const looked = names.length > MAXIMUM_NAMES ? `the first ${MAXIMUM_NAMES} of them are on the Hub` : "all on the Hub";
	return [fine(title, `${namespaces.length} namespaces, ${repos.length} repos: ${looked}`)];
}
