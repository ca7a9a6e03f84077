import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { type Document, isSeq, parseDocument } from "yaml";
import { type LoadedConfiguration, loadConfiguration } from "../config/load.ts";
import { listWebhooks } from "../hub/list-webhooks.ts";
import { publisherAccess } from "../server/hub-access.ts";
import { registerWebhook } from "../server/register-webhook.ts";
import { problemLine } from "./config-check.ts";
import { EXIT_CODES, type ExitCode } from "./exit-codes.ts";
import { printable, type Terminal } from "./terminal.ts";

export type WatchOptions = {
	readonly action: string;
	/** Users, organisations, or models as `namespace/name`. */
	readonly names: readonly string[];
	readonly configurationPath: string | null;
	readonly json: boolean;
};

type Loaded = LoadedConfiguration & { readonly ok: true };

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,95}(?:\/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?$/;

/** Adds names to a list of the file or takes them out; comments and everything else stay as they are. */
function editList(document: Document, key: "namespaces" | "repos", names: readonly string[], add: boolean): number {
	if (names.length === 0) return 0;
	const found = document.getIn(["watch", key]);
	const before = isSeq(found) ? (found.toJSON() as unknown[]).map(String) : [];
	const after = add ? [...new Set([...before, ...names])] : before.filter((name) => !names.includes(name));
	if (after.length !== before.length) document.setIn(["watch", key], document.createNode(after, { flow: true }));
	return Math.abs(after.length - before.length);
}

/** Whole or not at all: a bot that starts meanwhile must not read half a file. */
function writeWhole(path: string, text: string): void {
	const draft = `${path}.${process.pid}.draft`;
	writeFileSync(draft, text);
	renameSync(draft, path);
}

/** What the Hub has of the webhook; `null` where it cannot be looked up. */
async function webhookState(loaded: Loaded): Promise<string | null> {
	const { configuration, secrets } = loaded;
	const { publicUrl } = configuration.server;
	if (publicUrl === null || secrets.publisherToken === null) return null;
	const address = `${publicUrl}/webhooks/hub`;
	const webhook = (await listWebhooks(publisherAccess(configuration, secrets))).find((one) => one.url === address);
	if (webhook === undefined) return "not registered";
	if (webhook.disabled !== false) return typeof webhook.disabled === "string" ? webhook.disabled : "disabled";
	return `active, for ${webhook.watched.map((one) => one.name).join(", ")}`;
}

async function register(loaded: Loaded): Promise<string | null> {
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

/** `yaqa-bot watch add|remove|list`: the lists in the configuration file, and the Hub's webhook with them. */
export async function watch(options: WatchOptions, terminal: Terminal): Promise<ExitCode> {
	const { action, names, json } = options;
	const refuse = (message: string): ExitCode => {
		terminal.err(`${message}\n`);
		if (json) terminal.out(`${JSON.stringify({ ok: false, error: { message } })}\n`);
		return EXIT_CODES.usage.code;
	};
	if (action !== "add" && action !== "remove" && action !== "list") {
		return refuse(`"yaqa-bot watch" takes add, remove or list; not "${printable(action.slice(0, 60))}".`);
	}
	if (action !== "list" && names.length === 0)
		return refuse(`Say what to ${action}: a user, an organisation or a model.`);
	if (action === "list" && names.length > 0) return refuse('"yaqa-bot watch list" takes no names.');
	const wrong = names.find((name) => !NAME.test(name));
	if (wrong !== undefined)
		return refuse(`"${printable(wrong.slice(0, 100))}" is neither a namespace nor namespace/model.`);

	const load = () => loadConfiguration(options.configurationPath === null ? {} : { path: options.configurationPath });
	const before = load();
	if (!before.ok) return refuse(before.problems.map(problemLine).join("\n"));
	let loaded: Loaded = before;
	let changed = 0;
	let registration: string | null = null;
	if (action !== "list") {
		if (before.path === null) return refuse("There is no configuration file to change. Name one with --config.");
		const document = parseDocument(readFileSync(before.path, "utf8"));
		const isModel = (name: string) => name.includes("/");
		const namespaces = names.filter((name) => !isModel(name));
		changed =
			editList(document, "namespaces", namespaces, action === "add") +
			editList(document, "repos", names.filter(isModel), action === "add");
		if (changed > 0) {
			writeWhole(before.path, document.toString({ lineWidth: 0 }));
			const after = load();
			if (!after.ok) return refuse(after.problems.map(problemLine).join("\n"));
			loaded = after;
			registration = await register(after);
		}
	}
	const { namespaces, repos } = loaded.configuration.watch;
	const webhook = await webhookState(loaded);
	if (json) {
		terminal.out(`${JSON.stringify({ ok: true, changed, namespaces, repos, registration, webhook })}\n`);
		return EXIT_CODES.ok.code;
	}
	for (const name of namespaces) terminal.out(`${name}  every model\n`);
	for (const name of repos) terminal.out(`${name}\n`);
	if (namespaces.length + repos.length === 0) terminal.out("Nothing is watched.\n");
	terminal.out(`Webhook: ${webhook ?? "cannot be looked up without server.publicUrl and YAQA_BOT_HUB_TOKEN"}\n`);
	if (action !== "list") {
		terminal.err(
			changed === 0 ? "Nothing had to be changed.\n" : "A bot that runs takes it up when it is started again.\n",
		);
	}
	return EXIT_CODES.ok.code;
}
