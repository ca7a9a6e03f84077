import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { EXIT_CODES } from "../src/cli/exit-codes.ts";
import { createProgressDisplay } from "../src/cli/progress-display.ts";
import type { Terminal } from "../src/cli/terminal.ts";
import { listDiscussions } from "../src/hub/list-discussions.ts";
import { checkPublished } from "./check-published.ts";
import { followJob, type JobEvent, jobsOf, waitFor } from "./follow-job.ts";
import { pushWithHfUpload } from "./push-model.ts";
import { type DemoResult, renderResult, resultOf } from "./results.ts";
import { root, type Stack, StackError, startStack } from "./stack.ts";

export const DEMO_SOURCE = "demo/small-llama";

export type DemoOptions = {
	/** The last line of stdout is one JSON document; everything else goes to stderr. */
	readonly json?: boolean;
	/** End when everything is published, instead of staying open. */
	readonly exit?: boolean;
	/** Ports of the bot's pages and of the Hub; 0 takes a free one. */
	readonly port?: number;
	readonly hubPort?: number;
	/** Where everything is kept. Without it a temporary folder, removed at the end. */
	readonly dataDirectory?: string | null;
	/** Leave the temporary folder. */
	readonly keep?: boolean;
	readonly databaseUrl?: string | null;
	readonly setupSeconds?: number;
	/** The folder that is pushed. */
	readonly model?: string;
	readonly signal?: AbortSignal;
};

/** What `scripts/run.mjs` measured before it started this program. */
function setupSeconds(): number {
	const seconds = Number(process.env["YAQA_SETUP_SECONDS"] ?? 0);
	return Number.isFinite(seconds) ? seconds : 0;
}

/** How long a job may be silent before the demo gives up on it. */
const PATIENCE_SECONDS = 600;

/** The number of the bot's discussion in the source repo. */
async function announcementOf(stack: Stack): Promise<number | null> {
	for await (const discussion of listDiscussions({ hubUrl: stack.hub.url, repo: DEMO_SOURCE })) {
		if (discussion.author?.name === stack.people.bot.name) return discussion.num;
	}
	return null;
}

/** Everything between the push and the announcement; the stack stays up. */
export async function pushAndWatch(
	stack: Stack,
	params: {
		readonly model: string;
		readonly say: (text: string) => void;
		readonly onEvent: (event: JobEvent) => void;
		readonly setupSeconds: number;
		readonly signal?: AbortSignal;
	},
): Promise<{ readonly result: DemoResult; readonly discussionUrl: string }> {
	const { hub, people, botUrl } = stack;
	const { say } = params;
	const signal = params.signal === undefined ? {} : { signal: params.signal };
	say(`Push ${DEMO_SOURCE} with "hf upload"`);
	await pushWithHfUpload({
		hubUrl: hub.url,
		token: people.owner.token,
		repo: DEMO_SOURCE,
		folder: params.model,
		message: "Add the model",
		cacheDirectory: join(stack.dataDirectory, "publisher"),
	});
	const job = await waitFor("The webhook's job", async () => (await jobsOf(botUrl, DEMO_SOURCE)).at(0) ?? null, {
		seconds: 60,
		...signal,
	});
	say(`The Hub called the webhook; the bot planned a job: ${botUrl}/jobs/${job.id}`);
	const end = await followJob({
		botUrl,
		id: job.id,
		onEvent: params.onEvent,
		patienceSeconds: PATIENCE_SECONDS,
		...signal,
	});
	if (end.job.state !== "done") {
		const refusal = end.job.refusal;
		throw new StackError(
			`The job ended as "${end.job.state}"${refusal === null ? "" : `: ${refusal.message} ${refusal.remedy}`}`,
		);
	}
	say("Download what was published, without a token, and compare");
	const published = [];
	for (const variant of end.variants) published.push(await checkPublished(hub.url, variant));
	const wrong = published.flatMap(({ repo, problems }) => problems.map((problem) => `${repo}: ${problem}`));
	if (wrong.length > 0) throw new StackError(`What is published is not what was measured: ${wrong.join("; ")}`);
	const announcement = await announcementOf(stack);
	if (announcement === null) throw new StackError(`The bot announced nothing in ${DEMO_SOURCE}.`);
	const jobSeconds = ((end.job.finishedAt ?? new Date()).getTime() - end.job.createdAt.getTime()) / 1000;
	return {
		result: resultOf({
			source: { repo: DEMO_SOURCE, revision: end.job.sourceSha },
			published,
			setupSeconds: params.setupSeconds,
			jobSeconds,
		}),
		discussionUrl: `${hub.url}/${DEMO_SOURCE}/discussions/${announcement}`,
	};
}

function untilInterrupted(signal: AbortSignal): Promise<void> {
	return new Promise((done) => {
		if (signal.aborted) done();
		else signal.addEventListener("abort", () => done());
	});
}

/**
 * The whole product on this machine, once: a local Hub, the bot, a push, and what becomes of it.
 * Resolves to the exit status: 0 when everything was published and checked, 1 when not, 75 when interrupted before.
 */
export async function runDemo(options: DemoOptions = {}): Promise<number> {
	const { json = false, exit = false } = options;
	const terminal: Terminal = {
		out: (text) => process.stdout.write(text),
		err: (text) => process.stderr.write(text),
		isScreen: process.stderr.isTTY === true,
		columns: () => process.stderr.columns ?? 80,
	};
	const display = createProgressDisplay(terminal, () => new Date());
	const onEvent = (happening: JobEvent): void => {
		if (happening.kind === "runner") {
			display.event(happening.event);
			return;
		}
		const ended = happening.to === "done" || happening.to === "failed";
		display.say(
			`${ended ? "✓" : "·"} ${happening.to}${happening.statusText === "" ? "" : `: ${happening.statusText}`}`,
		);
	};
	const interrupt = new AbortController();
	const stop = () => interrupt.abort(new StackError("Interrupted."));
	process.on("SIGINT", stop);
	process.on("SIGTERM", stop);
	options.signal?.addEventListener("abort", stop);
	const temporary = options.dataDirectory === undefined || options.dataDirectory === null;
	const dataDirectory = temporary ? await mkdtemp(join(tmpdir(), "yaqa-demo-")) : resolve(options.dataDirectory ?? "");
	let stack: Stack | null = null;
	let status: number = EXIT_CODES.ok.code;
	try {
		display.say("Start a Hub on this machine and the bot beside it");
		stack = await startStack({
			dataDirectory,
			databaseUrl: options.databaseUrl ?? null,
			...(options.port === undefined ? {} : { botPort: options.port }),
			...(options.hubPort === undefined ? {} : { hubPort: options.hubPort }),
		});
		await stack.startBot();
		await stack.webhookIsSetUp();
		display.say(`  Hub        ${stack.hub.url}`);
		display.say(`  catalogue  ${stack.botUrl}\n`);
		const { result, discussionUrl } = await pushAndWatch(stack, {
			model: options.model ?? join(root, "demo", "model"),
			say: display.say,
			onEvent,
			setupSeconds: options.setupSeconds ?? setupSeconds(),
			signal: interrupt.signal,
		});
		const { hub, botUrl } = stack;
		display.say("");
		display.say(renderResult(result, (repo) => `${hub.url}/${repo}`));
		display.say(`  ${discussionUrl}  (what the bot told the publisher)`);
		display.say(`  ${botUrl}  (catalogue)`);
		display.say(`\nThe job took ${result.seconds.job.toFixed(0)} s.`);
		if (json) terminal.out(`${JSON.stringify(result)}\n`);
		if (!exit) {
			display.say(
				"Everything stays open until Ctrl-C. To ask for a variant, comment in that discussion as the publisher:",
			);
			display.say("  @yaqa-bot quantize 8bit gguf");
			display.say(`Signed in at ${botUrl} as "demo", you cancel and retry jobs there, and have the page /operator.`);
			display.say(`Accounts and tokens of this Hub: ${join(dataDirectory, "accounts.json")}`);
			await untilInterrupted(interrupt.signal);
		}
	} catch (error) {
		const message = error instanceof Error ? error.message : String(error);
		status = interrupt.signal.aborted ? EXIT_CODES.interrupted.code : EXIT_CODES.failed.code;
		const remedy =
			temporary && options.keep !== true
				? "Run it again with --keep to look at the logs."
				: `The logs of the Hub and the bot are in ${dataDirectory}.`;
		display.say(`\nThe demo failed: ${message}\n${remedy}`);
		if (!(error instanceof StackError) && error instanceof Error) display.say(error.stack ?? "");
		if (json) terminal.out(`${JSON.stringify({ ok: false, error: { message, remedy } })}\n`);
	} finally {
		display.close();
		await stack?.close();
		if (temporary && options.keep !== true) await rm(dataDirectory, { recursive: true, force: true });
		else terminal.err(`Everything is kept in ${dataDirectory}\n`);
		process.off("SIGINT", stop);
		process.off("SIGTERM", stop);
	}
	return status;
}
