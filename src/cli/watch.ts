import { readFileSync, realpathSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { editList } from "../config/edit-list.ts";
import { type LoadedConfiguration, loadConfiguration } from "../config/load.ts";
import { PermanentError } from "../errors.ts";
import { findWatchable } from "../hub/find-watchable.ts";
import { listWebhooks } from "../hub/list-webhooks.ts";
import { publisherAccess, readAccess } from "../server/hub-access.ts";
import { type Registration, registerWebhook } from "../server/register-webhook.ts";
import { problemLine } from "./config-check.ts";
import { EXIT_CODES, type ExitCode } from "./exit-codes.ts";
import { firstLine } from "./finding.ts";
import { printable, type Terminal } from "./terminal.ts";

export type WatchOptions = {
	readonly action: string;
	/** Users, organisations, or models as `namespace/name`. */
	readonly names: readonly string[];
	readonly configurationPath: string | null;
	readonly json: boolean;
};

type Loaded = LoadedConfiguration & { readonly ok: true };

/** What became of the call: told in plain words, with nothing half done. */
type Refused = { readonly kind: "refused"; readonly message: string; readonly isUsage: boolean };
type Change =
	| {
			readonly kind: "changed";
			readonly loaded: Loaded;
			readonly changed: number;
			readonly registration: Registration | null;
	  }
	| Refused;

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,95}(?:\/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?$/;
const UNCHANGED = "Nothing was changed.";

function plain(error: unknown): string {
	return error instanceof PermanentError ? error.refusal.message : firstLine(error);
}
const failed = (message: string): Refused => ({ kind: "refused", message, isUsage: false });
const wrongUse = (message: string): Refused => ({ kind: "refused", message, isUsage: true });

/** What the Hub has of the webhook; `null` where it cannot be looked up. */
async function webhookState(loaded: Loaded): Promise<string | null> {
	const { configuration, secrets } = loaded;
	const { publicUrl } = configuration.server;
	if (publicUrl === null || secrets.publisherToken === null) return null;
	const address = `${publicUrl}/webhooks/hub`;
	try {
		const webhook = (await listWebhooks(publisherAccess(configuration, secrets))).find((one) => one.url === address);
		if (webhook === undefined) return "not registered";
		if (webhook.disabled !== false) return typeof webhook.disabled === "string" ? webhook.disabled : "disabled";
		return `active, for ${webhook.watched.map((one) => one.name).join(", ")}`;
	} catch (error) {
		return `cannot be looked up: ${plain(error)}`;
	}
}

async function register(loaded: Loaded): Promise<Registration | null> {
	const { configuration, secrets } = loaded;
	const { publicUrl } = configuration.server;
	if (publicUrl === null || secrets.webhookSecret === null || secrets.publisherToken === null) return null;
	return await registerWebhook({
		hub: publisherAccess(configuration, secrets),
		publicUrl,
		secret: secrets.webhookSecret,
		watch: configuration.watch,
		renewSecret: true,
	});
}

/** The names as the Hub writes them, or why one of them cannot be watched. */
async function namesOnHub(
	loaded: Loaded,
	names: readonly string[],
): Promise<
	{ readonly ok: true; readonly names: readonly string[] } | { readonly ok: false; readonly message: string }
> {
	const access = readAccess(loaded.configuration, loaded.secrets);
	const found: string[] = [];
	const missing: string[] = [];
	for (const name of names) {
		try {
			const there = await findWatchable({ ...access, name });
			if (there !== null && there.name.toLowerCase() === name.toLowerCase()) found.push(there.name);
			else if (there !== null) missing.push(`"${name}" is called "${there.name}" now: watch that.`);
			else if (!name.includes("/")) missing.push(`The Hub has no user or organisation "${name}".`);
			else {
				missing.push(
					`The Hub shows no model "${name}". Check the name; a private one needs a YAQA_BOT_READ_TOKEN that may read it.`,
				);
			}
		} catch (error) {
			return { ok: false, message: `The Hub cannot be asked about "${name}": ${plain(error)} ${UNCHANGED}` };
		}
	}
	return missing.length === 0
		? { ok: true, names: found }
		: { ok: false, message: `${missing.join("\n")}\n${UNCHANGED}` };
}

/**
 * Changes file and webhook, or neither: the new file lies beside the old one, is read as the bot would, and takes its
 * place when the Hub has taken the webhook.
 */
async function change(before: Loaded, given: readonly string[], add: boolean): Promise<Change> {
	const { path } = before;
	if (path === null) return wrongUse("There is no configuration file to change. Name one with --config.");
	const looked = add ? await namesOnHub(before, given) : { ok: true as const, names: given };
	if (!looked.ok) return failed(looked.message);
	const isModel = (name: string): boolean => name.includes("/");
	// Through a link, so that the link stays one.
	const file = realpathSync(path);
	let text = readFileSync(file, "utf8");
	let changed = 0;
	for (const [key, names] of [
		["namespaces", looked.names.filter((name) => !isModel(name))],
		["repos", looked.names.filter(isModel)],
	] as const) {
		const edit = editList(text, { section: "watch", key }, names, add);
		if (!edit.ok) return failed(`${path}: ${edit.message}`);
		text = edit.text;
		changed += edit.changed;
	}
	const draft = `${file}.${process.pid}.draft`;
	try {
		// Whole or not at all: a bot that starts meanwhile must not read half a file.
		writeFileSync(draft, text, { mode: statSync(file).mode });
		const after = loadConfiguration({ path: draft });
		if (!after.ok) return failed(`${after.problems.map(problemLine).join("\n")}\n${UNCHANGED}`);
		const registration = changed === 0 ? null : await register(after);
		if (changed > 0) renameSync(draft, file);
		return { kind: "changed", loaded: { ...after, path }, changed, registration };
	} catch (error) {
		return failed(`${plain(error)}\n${UNCHANGED}`);
	} finally {
		rmSync(draft, { force: true });
	}
}

function usageProblem({ action, names }: WatchOptions): string | null {
	if (action !== "add" && action !== "remove" && action !== "list") {
		return `"yaqa-bot watch" takes add, remove or list; not "${printable(action.slice(0, 60))}".`;
	}
	if (action !== "list" && names.length === 0) return `Say what to ${action}: a user, an organisation or a model.`;
	if (action === "list" && names.length > 0) return '"yaqa-bot watch list" takes no names.';
	const wrong = names.find((name) => !NAME.test(name));
	return wrong === undefined ? null : `"${printable(wrong.slice(0, 100))}" is neither a namespace nor namespace/model.`;
}

async function perform(options: WatchOptions): Promise<Change> {
	const problem = usageProblem(options);
	if (problem !== null) return wrongUse(problem);
	const loaded = loadConfiguration(options.configurationPath === null ? {} : { path: options.configurationPath });
	if (!loaded.ok) return wrongUse(loaded.problems.map(problemLine).join("\n"));
	if (options.action === "list") return { kind: "changed", loaded, changed: 0, registration: null };
	return await change(loaded, options.names, options.action === "add");
}

/** `yaqa-bot watch add|remove|list`: the lists in the configuration file, and the Hub's webhook with them. */
export async function watch(options: WatchOptions, terminal: Terminal): Promise<ExitCode> {
	const done = await perform(options);
	if (done.kind === "refused") {
		terminal.err(`${printable(done.message)}\n`);
		if (options.json) terminal.out(`${JSON.stringify({ ok: false, error: { message: done.message } })}\n`);
		return done.isUsage ? EXIT_CODES.usage.code : EXIT_CODES.failed.code;
	}
	const { namespaces, repos } = done.loaded.configuration.watch;
	const { changed, registration } = done;
	const webhook = await webhookState(done.loaded);
	const leftOut = registration?.leftOut ?? [];
	if (options.json) {
		const answer = { namespaces, repos, registration: registration?.outcome ?? null, leftOut, webhook };
		terminal.out(`${JSON.stringify({ ok: true, changed, ...answer })}\n`);
		return EXIT_CODES.ok.code;
	}
	for (const name of namespaces) terminal.out(`${name}  every model\n`);
	for (const name of repos) terminal.out(`${name}\n`);
	if (namespaces.length + repos.length === 0) terminal.out("Nothing is watched.\n");
	terminal.out(
		`Webhook: ${printable(webhook ?? "cannot be looked up without server.publicUrl and YAQA_BOT_HUB_TOKEN")}\n`,
	);
	for (const { name, reason } of leftOut) {
		terminal.err(`Not in the webhook: ${name}: ${printable(reason)}. Its pushes are found by the sweep alone.\n`);
	}
	if (options.action !== "list") {
		terminal.err(
			changed === 0 ? "Nothing had to be changed.\n" : "A bot that runs takes it up when it is started again.\n",
		);
	}
	return EXIT_CODES.ok.code;
}
