import { timingSafeEqual } from "node:crypto";
import { digestOf } from "./digest.ts";
import { HubError } from "./hub-error.ts";
import { accountId, isNamespace } from "./identifiers.ts";

type TokenRole = "read" | "write" | "fineGrained";
export type OrgRole = "admin" | "write" | "contributor" | "read";

/** What a fine-grained token may be given on the namespaces that it names, in the Hub's own words. */
export const SCOPED_PERMISSIONS = [
	"repo.content.read",
	"repo.write",
	"collection.read",
	"collection.write",
	"discussion.write",
	"job.write",
] as const;
export type ScopedPermission = (typeof SCOPED_PERMISSIONS)[number];

/** An access token. A fine-grained one has the permissions that it names, and no others. */
type LocalHubToken = {
	readonly token: string;
	readonly role?: TokenRole | undefined;
	readonly name?: string | undefined;
	/** The namespaces that `permissions` are for. */
	readonly writeNamespaces?: readonly string[] | undefined;
	/** Absent: every one but that of discussions. */
	readonly permissions?: readonly ScopedPermission[] | undefined;
	/** In discussions everywhere. */
	readonly discussions?: boolean | undefined;
	/** The account's own webhooks and notifications. */
	readonly webhooks?: boolean | undefined;
};

/** A user and the tokens that speak for it. Organizations come into being by having members. */
export type LocalHubUser = LocalHubToken & {
	readonly name: string;
	readonly fullname?: string | undefined;
	readonly email?: string | undefined;
	readonly orgs?: readonly { readonly name: string; readonly role: OrgRole }[] | undefined;
	readonly moreTokens?: readonly LocalHubToken[] | undefined;
};

/** What is to be known of an organization besides its members. */
export type LocalHubOrganization = {
	readonly name: string;
	readonly fullname?: string | undefined;
	/** Nobody may have a webhook watch it. */
	readonly refusesWebhooks?: boolean | undefined;
};

export type User = {
	readonly id: string;
	readonly name: string;
	readonly fullname: string;
	readonly email: string;
	readonly orgs: ReadonlyMap<string, OrgRole>;
};
type Organization = {
	readonly id: string;
	readonly name: string;
	readonly fullname: string;
	readonly members: ReadonlyMap<string, OrgRole>;
	readonly refusesWebhooks: boolean;
};
export type Identity = {
	readonly user: User;
	readonly token: {
		readonly displayName: string;
		readonly role: TokenRole;
		readonly writeNamespaces: readonly string[];
		readonly permissions: readonly ScopedPermission[];
		readonly discussions: boolean;
		readonly webhooks: boolean;
	};
};

export type Accounts = {
	users(): readonly User[];
	user(name: string): User | null;
	userById(id: string): User | null;
	organization(name: string): Organization | null;
	organizations(): readonly Organization[];
	/** The identity behind an `Authorization` header; `null` without one; 401 for one that no token matches. */
	authenticate(header: string | undefined): Identity | null;
};

const TOKEN = /^hf_[A-Za-z0-9._-]{3,}$/;

export function createAccounts(
	seeds: readonly LocalHubUser[],
	described: readonly LocalHubOrganization[] = [],
): Accounts {
	const users = new Map<string, User>();
	const members = new Map<string, Map<string, OrgRole>>();
	const tokens: { readonly digest: Buffer; readonly identity: Identity }[] = [];
	for (const seed of seeds) {
		if (!isNamespace(seed.name)) throw new Error(`Not a user name the Hub would take: ${JSON.stringify(seed.name)}.`);
		if (users.has(seed.name)) throw new Error(`Two users are named ${seed.name}.`);
		const user: User = {
			id: accountId(seed.name),
			name: seed.name,
			fullname: seed.fullname ?? seed.name,
			email: seed.email ?? `${seed.name}@example.invalid`,
			orgs: new Map((seed.orgs ?? []).map((org) => [org.name, org.role])),
		};
		users.set(seed.name, user);
		for (const [name, role] of user.orgs) {
			const of = members.get(name) ?? new Map<string, OrgRole>();
			of.set(seed.name, role);
			members.set(name, of);
		}
		for (const token of [seed, ...(seed.moreTokens ?? [])]) {
			if (!TOKEN.test(token.token))
				throw new Error(`The token of ${seed.name} must start with hf_, or stock clients refuse it.`);
			const role = token.role ?? "write";
			tokens.push({
				digest: digestOf(token.token),
				identity: {
					user,
					token: {
						displayName: (token === seed ? undefined : token.name) ?? `${seed.name}-${role}`,
						role,
						writeNamespaces: token.writeNamespaces ?? [],
						permissions: token.permissions ?? SCOPED_PERMISSIONS.filter((one) => one !== "discussion.write"),
						discussions: role === "write" || (role === "fineGrained" && (token.discussions ?? false)),
						webhooks: role === "write" || (role === "fineGrained" && (token.webhooks ?? false)),
					},
				},
			});
		}
	}
	const organizations = organizationsOf(users, members, described);

	return {
		users: () => [...users.values()],
		user: (name) => users.get(name) ?? null,
		userById: (id) => [...users.values()].find((user) => user.id === id) ?? null,
		organization: (name) => organizations.get(name) ?? null,
		organizations: () => [...organizations.values()],
		authenticate(header) {
			if (header === undefined || header === "") return null;
			let given: string | null = null;
			if (header.startsWith("Bearer ")) given = header.slice(7).trim();
			else if (header.startsWith("Basic ")) {
				// git and git-lfs send the token as the password
				const pair = Buffer.from(header.slice(6), "base64").toString("utf8");
				given = pair.slice(pair.indexOf(":") + 1);
			}
			const wanted = digestOf(given ?? "");
			let found: Identity | null = null;
			// no early end: the time must not tell how far a guess got
			for (const token of tokens) if (timingSafeEqual(token.digest, wanted)) found = token.identity;
			if (found === null) throw new HubError(401, "Invalid credentials in Authorization header");
			return found;
		},
	};
}

function organizationsOf(
	users: ReadonlyMap<string, User>,
	members: ReadonlyMap<string, ReadonlyMap<string, OrgRole>>,
	described: readonly LocalHubOrganization[],
): ReadonlyMap<string, Organization> {
	const organizations = new Map<string, Organization>();
	for (const name of new Set([...members.keys(), ...described.map((one) => one.name)])) {
		if (users.has(name)) throw new Error(`${name} is both a user and an organization.`);
		if (!isNamespace(name)) throw new Error(`Not an organization name the Hub would take: ${JSON.stringify(name)}.`);
		const more = described.find((one) => one.name === name);
		organizations.set(name, {
			id: accountId(name),
			name,
			fullname: more?.fullname ?? name,
			members: members.get(name) ?? new Map(),
			refusesWebhooks: more?.refusesWebhooks ?? false,
		});
	}
	return organizations;
}

/** May this identity act as a member of the namespace, by what the account is and what the token allows? */
export function mayWriteNamespace(
	identity: Identity,
	namespace: string,
	permission: ScopedPermission = "repo.write",
): boolean {
	const role = identity.user.orgs.get(namespace);
	const owns = identity.user.name === namespace || role === "admin" || role === "write" || role === "contributor";
	if (!owns) return false;
	switch (identity.token.role) {
		case "read":
			return false;
		case "write":
			return true;
		case "fineGrained":
			return identity.token.writeNamespaces.includes(namespace) && identity.token.permissions.includes(permission);
	}
}

/** May this identity say something in the discussions of a namespace's repos? */
export function mayDiscuss({ token }: Identity, namespace: string): boolean {
	if (token.discussions) return true;
	const named = token.role === "fineGrained" && token.writeNamespaces.includes(namespace);
	return named && token.permissions.includes("discussion.write");
}

export function isMemberOf(identity: Identity, namespace: string): boolean {
	if (identity.user.name !== namespace && !identity.user.orgs.has(namespace)) return false;
	return identity.token.role !== "fineGrained" || identity.token.writeNamespaces.includes(namespace);
}
