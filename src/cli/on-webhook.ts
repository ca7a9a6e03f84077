import { systemClock } from "../clock.ts";
import { loadConfiguration } from "../config/load.ts";
import type { Configuration } from "../config/schema.ts";
import { readWebhookEvent } from "../config/webhook-event.ts";
import { openDatabase } from "../db/open-database.ts";
import { readHubEvent } from "../deliveries/hub-event.ts";
import type { HubWriteAccess } from "../hub/hub-access.ts";
import { ownAccount } from "../hub/own-account.ts";
import { createLog } from "../log.ts";
import { parseJson } from "../parse-json.ts";
import { publisherAccess } from "../server/hub-access.ts";
import { runOnce } from "../server/run-once.ts";
import { constantTimeEqual } from "../web/constant-time-equal.ts";
import { problemLine } from "./config-check.ts";
import { EXIT_CODES, type ExitCode } from "./exit-codes.ts";
import { firstLine } from "./finding.ts";
import { printable, type Terminal } from "./terminal.ts";

/** Events that need no database, most of all those of what the bot itself wrote: a job is paid by the minute. */
async function whyNothing(
	body: unknown,
	configuration: Configuration,
	publisher: HubWriteAccess,
): Promise<string | null> {
	const event = readHubEvent(body, configuration.watch.ref);
	if (event.kind === "ignored") return event.reason;
	if (event.kind !== "comment" || event.authorId === null) return null;
	return event.authorId === (await ownAccount(publisher)()).id ? "It is the bot's own comment." : null;
}

/** `yaqa-bot on-webhook`: works on the event that a webhook of the Hub started this job for, to its end. */
export async function onWebhook(
	options: { readonly configurationPath: string | null; readonly json: boolean },
	terminal: Terminal,
	signal: AbortSignal,
): Promise<ExitCode> {
	const told = (
		ok: boolean,
		message: string,
		code: ExitCode,
		more: Readonly<Record<string, unknown>> = {},
	): ExitCode => {
		terminal.err(`${printable(message)}\n`);
		if (options.json) terminal.out(`${JSON.stringify({ ok, ...(ok ? {} : { error: { message } }), ...more })}\n`);
		return code;
	};
	const loaded = loadConfiguration(options.configurationPath === null ? {} : { path: options.configurationPath });
	if (!loaded.ok) return told(false, loaded.problems.map(problemLine).join("\n"), EXIT_CODES.usage.code);
	const { configuration, secrets } = loaded;
	const { publisherToken, webhookSecret } = secrets;
	if (publisherToken === null)
		return told(
			false,
			"Set YAQA_BOT_HUB_TOKEN as a secret of the job. `yaqa-bot doctor` checks it.",
			EXIT_CODES.usage.code,
		);
	const event = readWebhookEvent();
	if (event === null)
		return told(
			true,
			"No webhook started this: there is nothing to do. Give this job's id to a webhook.",
			EXIT_CODES.ok.code,
		);
	if (webhookSecret !== null && !constantTimeEqual(event.secret ?? "", webhookSecret))
		return told(
			false,
			"The webhook has another secret than YAQA_BOT_WEBHOOK_SECRET: nothing was done. Give both the same.",
			EXIT_CODES.failed.code,
		);
	const body = parseJson(event.payload);
	if (body === null) return told(false, "WEBHOOK_PAYLOAD is no JSON.", EXIT_CODES.failed.code);
	const publisher = { ...publisherAccess(configuration, secrets), accessToken: publisherToken };
	try {
		const nothing = await whyNothing(body, configuration, publisher);
		if (nothing !== null) return told(true, `Nothing to do: ${nothing}`, EXIT_CODES.ok.code);
	} catch (error) {
		return told(false, `The event could not be looked at: ${firstLine(error)}`, EXIT_CODES.failed.code);
	}
	const log = createLog({
		level: configuration.log.level,
		write: (line) => terminal.err(`${line}\n`),
		now: () => systemClock.now(),
	});
	try {
		const database = await openDatabase({
			dataDirectory: configuration.database.dataDirectory,
			databaseUrl: secrets.databaseUrl,
			poolSize: configuration.database.poolSize,
			clock: systemClock,
			log,
		});
		const settings = { configuration, secrets, publisherToken };
		const report = await runOnce({ settings, database, event: { id: event.id, body }, log, signal });
		const lines = report.jobs.map(({ sourceRepo, state, statusText, refusal }) =>
			[`${sourceRepo}: ${state}. ${statusText}`, ...(refusal === null ? [] : [refusal.message, refusal.remedy])].join(
				" ",
			),
		);
		const ok = report.outcome !== "failed" && !report.isHeld && report.jobs.every(({ state }) => state !== "failed");
		const message = [`The event: ${report.outcome}. ${report.detail ?? ""}`.trim(), ...lines].join("\n");
		return told(ok, message, ok ? EXIT_CODES.ok.code : EXIT_CODES.failed.code, { report });
	} catch (error) {
		return told(false, `The event could not be worked on: ${firstLine(error)}`, EXIT_CODES.failed.code);
	}
}
