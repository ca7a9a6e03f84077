import type { Request } from "express";
import { z } from "zod";
import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import { type Accounts, type Identity, isMemberOf, mayWriteNamespace } from "./accounts.ts";
import type { BlobStore } from "./blob-store.ts";
import type { BucketStore } from "./bucket-store.ts";
import type { CollectionStore } from "./collection-store.ts";
import type { DiscussionStore } from "./discussion-store.ts";
import type { Faults } from "./faults.ts";
import { HubError } from "./hub-error.ts";
import type { JobStore } from "./job-store.ts";
import type { OAuthApp } from "./oauth/oauth-apps.ts";
import { identityOfConsent, type OAuthGrants } from "./oauth/oauth-grants.ts";
import type { ReadMarks } from "./read-marks.ts";
import type { RepoFacts } from "./repo-facts.ts";
import { type Commit, fullName, type RefUpdate, type Repo, type RepoStore, type RepoType } from "./repo-store.ts";
import type { ScheduledJobStore } from "./scheduled-job-store.ts";
import type { UrlSigner } from "./url-signer.ts";
import type { WebhookDispatcher } from "./webhook-delivery.ts";
import type { HubEvent } from "./webhook-payload.ts";
import type { WebhookStore } from "./webhook-store.ts";

/** Everything a route needs. `origin` is read at each use: with port 0 it is known only once the server listens. */
export type HubContext = {
	readonly origin: () => string;
	readonly instanceId: string;
	readonly clock: Clock;
	readonly log: Log;
	readonly accounts: Accounts;
	readonly oauthApps: ReadonlyMap<string, OAuthApp>;
	readonly oauthGrants: OAuthGrants;
	readonly blobs: BlobStore;
	readonly repos: RepoStore;
	readonly discussions: DiscussionStore;
	readonly collections: CollectionStore;
	readonly readMarks: ReadMarks;
	readonly webhooks: WebhookStore;
	readonly dispatcher: WebhookDispatcher;
	readonly jobs: JobStore;
	readonly buckets: BucketStore;
	readonly scheduledJobs: ScheduledJobStore;
	readonly faults: Faults;
	readonly facts: (commit: Commit) => Promise<RepoFacts>;
	readonly signer: UrlSigner;
	readonly multipartThreshold: number;
	readonly multipartChunk: number;
	/** Where LFS files are fetched from when that is another origin than this one, as on the Hub; `null`: from here. */
	readonly cdnOrigin: () => string | null;
};

type Access = "read" | "content" | "write";

export function parameter(request: Request, name: string): string {
	const value = request.params[name];
	if (typeof value !== "string") throw new HubError(400, `The URL lacks its ${name}.`);
	return value;
}

/** The segments, decoded, that a `*rest` wildcard matched. */
export function rest(request: Request): readonly string[] {
	const value: unknown = request.params["rest"];
	return z.array(z.string()).catch([]).parse(value);
}

export function parsedBody<T>(schema: z.ZodType<T>, request: Request): T {
	const parsed = schema.safeParse(request.body ?? {});
	if (!parsed.success) throw new HubError(400, `Invalid request body: ${z.prettifyError(parsed.error)}`);
	return parsed.data;
}

export function queryText(request: Request, name: string): string | null {
	const value: unknown = request.query[name];
	if (typeof value === "string") return value;
	return Array.isArray(value) && typeof value[0] === "string" ? value[0] : null;
}

export function queryTexts(request: Request, name: string): readonly string[] {
	const value: unknown = request.query[name] ?? request.query[`${name}[]`];
	const list: unknown[] = Array.isArray(value) ? value : [value];
	return list.filter((item): item is string => typeof item === "string");
}

export function queryFlag(request: Request, name: string): boolean {
	const value = queryText(request, name);
	return value !== null && !["", "0", "false", "False"].includes(value);
}

export function queryNumber(request: Request, name: string, otherwise: number, most: number): number {
	const value = Number(queryText(request, name) ?? otherwise);
	return Number.isInteger(value) && value >= 0 ? Math.min(value, most) : otherwise;
}

export function identityOf(context: HubContext, request: Request): Identity | null {
	const header = request.headers.authorization;
	const consent = context.oauthGrants.consentOf(header);
	return consent === null ? context.accounts.authenticate(header) : identityOfConsent(consent, context.accounts);
}

export function requireIdentity(context: HubContext, request: Request): Identity {
	const identity = identityOf(context, request);
	if (identity === null) throw new HubError(401, "Invalid username or password.");
	return identity;
}

export function mayRead(repo: Repo, identity: Identity | null): boolean {
	return !repo.record.private || (identity !== null && isMemberOf(identity, repo.record.namespace));
}

export function mayWrite(repo: Repo, identity: Identity): boolean {
	if (!mayWriteNamespace(identity, repo.record.namespace)) return false;
	const role = identity.user.orgs.get(repo.record.namespace);
	return role !== "contributor" || repo.record.createdBy === identity.user.name;
}

function mayReadContent(repo: Repo, identity: Identity | null): boolean {
	if (repo.record.gated === false) return true;
	if (identity === null) return false;
	if (isMemberOf(identity, repo.record.namespace)) return true;
	return repo.record.access.some((one) => one.user === identity.user.name && one.status === "accepted");
}

/** Sends a request that uses a former name on, as the Hub does: with the method and the body that it has. */
function redirectToNewName(request: Request, repo: Repo, name: string): void {
	if (fullName(repo).toLowerCase() === name.toLowerCase()) return;
	const location = request.originalUrl.replace(`/${name}`, () => `/${fullName(repo)}`);
	throw new HubError(307, `Temporary Redirect. Redirecting to ${location}`, { headers: { Location: location } });
}

/** The repo that a request names, if its sender has the access; else the refusal that the Hub gives. */
export function openRepo(
	context: HubContext,
	request: Request,
	type: RepoType,
	access: Access,
): { repo: Repo; identity: Identity | null } {
	const identity = identityOf(context, request);
	const name = `${parameter(request, "ns")}/${parameter(request, "name")}`;
	const repo = context.repos.find(type, name);
	if (repo === null || !mayRead(repo, identity))
		throw identity === null
			? new HubError(401, "Invalid username or password.", { code: "RepoNotFound" })
			: new HubError(404, "Repository not found", { code: "RepoNotFound" });
	redirectToNewName(request, repo, name);
	switch (access) {
		case "read":
			break;
		case "content":
			if (!mayReadContent(repo, identity))
				throw new HubError(
					identity === null ? 401 : 403,
					`Access to ${type} ${fullName(repo)} is restricted. Visit ${context.origin()}/${fullName(repo)} to ask for access.`,
					{ code: "GatedRepo" },
				);
			break;
		case "write":
			writerOf(repo, identity);
			break;
	}
	return { repo, identity };
}

/** The identity, when it may write to the repo. */
export function writerOf(repo: Repo, identity: Identity | null): Identity {
	if (identity === null) throw new HubError(401, "Invalid username or password.");
	if (!mayWrite(repo, identity))
		throw new HubError(
			403,
			`You don't have the rights to write to ${repo.record.type} ${fullName(repo)} with this token.`,
		);
	return identity;
}

/** Whether a revision is the ref of a pull request that this identity opened: it may commit there without other rights. */
export function isAuthorOfPull(context: HubContext, repo: Repo, identity: Identity | null, revision: string): boolean {
	const num = /^refs\/pr\/(\d{1,9})$/.exec(revision)?.[1];
	if (num === undefined || identity === null) return false;
	return context.discussions.get(repo, Number(num))?.author === identity.user.name;
}

export function webPath(repo: Repo): string {
	const prefix = repo.record.type === "model" ? "" : `${repo.record.type}s/`;
	return `${prefix}${fullName(repo)}`;
}

export function apiPath(repo: Repo): string {
	return `api/${repo.record.type}s/${fullName(repo)}`;
}

export function namespaceId(context: HubContext, namespace: string): string {
	const owner = context.accounts.user(namespace) ?? context.accounts.organization(namespace);
	return owner?.id ?? "0".repeat(24);
}

/** The `repo` field of a webhook payload. */
export async function repoSnapshot(
	context: HubContext,
	repo: Repo,
	options: { withHead: boolean },
): Promise<HubEvent["repo"]> {
	const head = repo.refs.branches["main"];
	const commit = head === undefined ? null : await context.repos.commit(repo, head);
	return {
		type: repo.record.type,
		name: fullName(repo),
		id: repo.record.id,
		private: repo.record.private,
		url: { web: `${context.origin()}/${webPath(repo)}`, api: `${context.origin()}/${apiPath(repo)}` },
		...(options.withHead && head !== undefined ? { headSha: head } : {}),
		owner: { id: namespaceId(context, repo.record.namespace) },
		tags: commit === null ? [] : (await context.facts(commit)).tags,
	};
}

/** Stores the event for the webhooks that watch; a failure to do so is logged, for what happened has happened. */
export async function publish(context: HubContext, repo: Repo, event: HubEvent): Promise<void> {
	try {
		await context.dispatcher.publish(event, (owner) => {
			if (!repo.record.private) return true;
			const user = context.accounts.user(owner);
			return user !== null && (user.name === repo.record.namespace || user.orgs.has(repo.record.namespace));
		});
	} catch (error) {
		context.log.error("A webhook event could not be stored", { error, repo: fullName(repo) });
	}
}

export async function publishRefs(context: HubContext, repo: Repo, updatedRefs: readonly RefUpdate[]): Promise<void> {
	await publish(context, repo, {
		event: { action: "update", scope: "repo.content" },
		repo: await repoSnapshot(context, repo, { withHead: true }),
		updatedRefs,
	});
}
