import type { Configuration } from "../config/schema.ts";
import type { Secrets } from "../config/secrets.ts";
import { assertNever, PermanentError } from "../errors.ts";
import { findWatchable } from "../hub/find-watchable.ts";
import type { HubWriteAccess } from "../hub/hub-access.ts";
import { hubStatus } from "../hub/hub-request-error.ts";
import { isGranted, type TokenRights, tokenRights } from "../hub/token-rights.ts";
import { tryPrivateRepo } from "../hub/try-private-repo.ts";
import { publisherAccess, readAccess } from "../server/hub-access.ts";
import { broken, type Finding, fine, firstLine, lacking } from "./finding.ts";

const WRITING_ROLES: ReadonlySet<string> = new Set(["admin", "write", "contributor"]);

type Asked = { readonly access: HubWriteAccess; readonly rights: TokenRights } | Finding;

function isFinding(asked: Asked): asked is Finding {
	return "state" in asked;
}

/** What the Hub says of a token, or the finding that it says nothing. */
async function ask(name: string, access: HubWriteAccess): Promise<Asked> {
	try {
		return { access, rights: await tokenRights(access) };
	} catch (error) {
		if (hubStatus(error) === 401) {
			return broken(
				name,
				"the Hub does not accept it",
				"It has expired or was revoked: make a new one in the Hub's settings.",
			);
		}
		const said = error instanceof PermanentError ? error.refusal.message : firstLine(error);
		return broken(name, said, "Check hub.url and the network.");
	}
}

/** Whether the account of a token may write to a namespace at all; `null` where nothing speaks against it. */
async function accountProblem(
	{ access, rights }: Exclude<Asked, Finding>,
	namespace: string,
	setting: string,
): Promise<{ readonly detail: string; readonly remedy: string } | null> {
	if (rights.account === namespace) return null;
	const role = rights.organisations.get(namespace);
	if (role === undefined) {
		const found = await findWatchable({ ...access, name: namespace });
		return found === null
			? {
					detail: `there is no user or organisation ${namespace}`,
					remedy: `Correct ${setting}, or make the organisation.`,
				}
			: {
					detail: `${rights.account} is not in ${namespace}`,
					remedy: `Correct ${setting}, or add ${rights.account} to the organisation with the role "write".`,
				};
	}
	return role === null || WRITING_ROLES.has(role)
		? null
		: {
				detail: `${rights.account} has the role "${role}" in ${namespace}`,
				remedy: `An admin of ${namespace} gives ${rights.account} the role "write".`,
			};
}

/** Tries it on the Hub, with a private repo that is gone afterwards. */
async function tried(name: string, detail: string, access: HubWriteAccess, namespace: string): Promise<Finding> {
	const trial = await tryPrivateRepo({ ...access, namespace });
	switch (trial.kind) {
		case "done":
			return fine(name, `${detail}; it made, wrote and deleted a private repo in ${namespace}`);
		case "left":
			return lacking(
				name,
				`${detail}; it may write to ${namespace}, but not delete: ${trial.message}`,
				`Delete ${trial.repo}, and give the token the right to delete what it makes.`,
			);
		case "refused":
			return trial.status === 402
				? broken(
						name,
						`${detail}; ${namespace} may have no private repos: ${trial.message}`,
						`Whoever pays for ${namespace} looks at its plan.`,
					)
				: broken(
						name,
						`${detail}; it may not write to ${namespace}: ${trial.message}`,
						`Give it "Write access to contents and settings" of ${namespace}.`,
					);
		default:
			return assertNever(trial);
	}
}

function described({ account, role }: TokenRights): string {
	return `of ${account}${role === null ? "" : `, role ${role}`}`;
}

/** What the publisher's token has to be allowed besides writing, and what is lost without it. */
function missingRights(rights: TokenRights, configuration: Configuration, secrets: Secrets): readonly Finding[] {
	const name = "Publisher's rights";
	const { requests, server } = configuration;
	const wanted: { readonly permission: string; readonly on: string; readonly title: string; readonly loss: string }[] =
		[];
	if (requests.comments) {
		const title = 'Discussions: "Interact with discussions / Open pull requests on external repos"';
		wanted.push({ permission: "discussion.write", on: "", title, loss: "nobody is answered" });
	}
	if (server.publicUrl !== null && secrets.webhookSecret !== null) {
		const title = 'Webhooks: "Create and manage webhooks"';
		wanted.push({
			permission: "user.webhooks.write",
			on: rights.account,
			title,
			loss: "pushes are found by the sweep alone",
		});
	} else if (requests.comments && requests.pollSeconds > 0) {
		for (const permission of ["user.notifications.read", "user.notifications.write"]) {
			const title = 'the account\'s notifications, "read" and "write"';
			wanted.push({ permission, on: rights.account, title, loss: "comments are not found" });
		}
	}
	return wanted
		.filter(({ permission, on }) => !isGranted(rights, on, permission))
		.map(({ permission, title, loss }) =>
			lacking(name, `it lacks ${permission}: ${loss}`, `Tick ${title} in the token's settings.`),
		);
}

export async function checkPublisherToken(configuration: Configuration, secrets: Secrets): Promise<readonly Finding[]> {
	const name = "Publisher token";
	const { namespace, botUser } = configuration.hub;
	const access = publisherAccess(configuration, secrets);
	const { accessToken } = access;
	if (accessToken === undefined) {
		return [
			broken(
				name,
				"not set",
				"Set YAQA_BOT_HUB_TOKEN to a token of the bot's account that may write to its namespace.",
			),
		];
	}
	const asked = await ask(name, { ...access, accessToken });
	if (isFinding(asked)) return [asked];
	const { rights } = asked;
	const detail = described(rights);
	if (rights.role === "read") {
		return [broken(name, `${detail}: it may not write`, `Make one that may write to ${namespace}.`)];
	}
	const findings: Finding[] = [];
	try {
		const problem = await accountProblem(asked, namespace, "hub.namespace");
		if (problem !== null) findings.push(broken(name, `${detail}: ${problem.detail}`, problem.remedy));
		else if (!isGranted(rights, namespace, "repo.write")) {
			const remedy = `Tick "Write access to contents and settings" of ${namespace} in the token's settings.`;
			findings.push(broken(name, `${detail}: it was not given the right to write to ${namespace}`, remedy));
		} else findings.push(await tried(name, detail, asked.access, namespace));
	} catch (error) {
		findings.push(broken(name, `${detail}: ${firstLine(error)}`, "Check hub.url and the network."));
	}
	if (rights.account !== botUser) {
		findings.push(
			lacking(
				"Bot's account",
				`the token is of ${rights.account}, hub.botUser says "${botUser}"`,
				"Correct hub.botUser, so that links and answers fit.",
			),
		);
	}
	return [...findings, ...missingRights(rights, configuration, secrets)];
}

/** What a fine-grained token may change, for one that should only read. */
function writesOf(rights: TokenRights): readonly string[] {
	const all = [...rights.anywhere, ...[...rights.scoped.values()].flat()];
	return [...new Set(all.filter((permission) => permission.endsWith(".write")))];
}

export async function checkReadToken(configuration: Configuration, secrets: Secrets): Promise<Finding> {
	const name = "Read token";
	const { readToken } = secrets;
	if (readToken === null) {
		return lacking(
			name,
			"not set: the publisher's token reads",
			"Set YAQA_BOT_READ_TOKEN to a token that may only read.",
		);
	}
	const asked = await ask(name, { ...readAccess(configuration, secrets), accessToken: readToken });
	if (isFinding(asked)) return asked;
	const detail = described(asked.rights);
	const writes = asked.rights.role === "write" ? ["everything"] : writesOf(asked.rights);
	return writes.length === 0
		? fine(name, `${detail}: it may only read`)
		: lacking(
				name,
				`${detail}: it may write (${writes.join(", ")})`,
				"A token that may only read is enough here, and safer.",
			);
}

/** Whether runs elsewhere get a token that stages, and that cannot touch what is published. */
export async function checkStagingToken(configuration: Configuration, secrets: Secrets): Promise<readonly Finding[]> {
	const { stagingNamespace, kind } = configuration.runner;
	const { stagingToken } = secrets;
	if (kind === "local" || stagingNamespace === null || stagingToken === null) return [];
	const name = "Staging token";
	const access = { ...publisherAccess(configuration, secrets), accessToken: stagingToken };
	const asked = await ask(name, access);
	if (isFinding(asked)) return [asked];
	const detail = described(asked.rights);
	try {
		const problem = await accountProblem(asked, stagingNamespace, "runner.stagingNamespace");
		if (problem !== null) return [broken(name, `${detail}: ${problem.detail}`, problem.remedy)];
		const staging = await tried(name, detail, access, stagingNamespace);
		const { namespace } = configuration.hub;
		const apart = "Staging is apart";
		const trial = await tryPrivateRepo({ ...access, namespace });
		if (trial.kind === "refused") {
			const role =
				asked.rights.role === "write" ? " A fine-grained token stays so when the account's roles change." : "";
			return [staging, fine(apart, `the staging token was refused in ${namespace}.${role}`)];
		}
		const left = trial.kind === "left" ? ` Delete ${trial.repo}.` : "";
		return [
			staging,
			broken(
				apart,
				`the staging token may write to ${namespace}, and runs are given it`,
				`Make a fine-grained one with write access to ${stagingNamespace} alone.${left}`,
			),
		];
	} catch (error) {
		return [broken(name, `${detail}: ${firstLine(error)}`, "Check hub.url and the network.")];
	}
}
