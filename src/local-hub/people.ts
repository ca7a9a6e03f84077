import type { Identity, OrgRole, User } from "./accounts.ts";
import type { HubContext } from "./hub-context.ts";
import type { Repo } from "./repo-store.ts";

export function avatarUrl(context: HubContext, name: string): string {
	return `${context.origin()}/avatars/${encodeURIComponent(name)}.svg`;
}

/** An account in the form that lists and discussions carry; absent for one that is no longer seeded. */
export function person(context: HubContext, name: string): Record<string, unknown> | undefined {
	const user = context.accounts.user(name);
	const organization = context.accounts.organization(name);
	const found = user ?? organization;
	if (found === null) return undefined;
	return {
		_id: found.id,
		avatarUrl: avatarUrl(context, name),
		fullname: found.fullname,
		name: found.name,
		isHf: false,
		isHfAdmin: false,
		isMod: false,
		...(user === null ? { type: "org" } : { type: "user", isPro: false }),
	};
}

/** The author of a discussion event: with what bots read to know who may give orders. */
export function eventAuthor(context: HubContext, repo: Repo, name: string): Record<string, unknown> | undefined {
	const found = person(context, name);
	if (found === undefined) return undefined;
	const role = context.accounts.organization(repo.record.namespace)?.members.get(name);
	return { ...found, isOwner: repo.record.namespace === name, isOrgMember: role !== undefined };
}

function organizationOf(context: HubContext, name: string, role: OrgRole): Record<string, unknown> {
	const organization = context.accounts.organization(name);
	return {
		type: "org",
		id: organization?.id ?? "",
		name,
		fullname: organization?.fullname ?? name,
		email: null,
		canPay: false,
		periodEnd: null,
		avatarUrl: avatarUrl(context, name),
		roleInOrg: role,
	};
}

const OWN_SETTINGS = [
	"user.webhooks.read",
	"user.webhooks.write",
	"user.notifications.read",
	"user.notifications.write",
] as const;

export function whoAmI(context: HubContext, identity: Identity, startedAt: string): Record<string, unknown> {
	const { user, token } = identity;
	return {
		type: "user",
		id: user.id,
		name: user.name,
		fullname: user.fullname,
		email: user.email,
		emailVerified: true,
		canPay: false,
		isPro: false,
		periodEnd: null,
		avatarUrl: avatarUrl(context, user.name),
		orgs: [...user.orgs].map(([name, role]) => organizationOf(context, name, role)),
		auth: {
			type: "access_token",
			accessToken: {
				displayName: token.displayName,
				role: token.role,
				createdAt: startedAt,
				...(token.role === "fineGrained"
					? {
							fineGrained: {
								scoped: [
									...token.writeNamespaces.map((name) => ({
										entity: {
											_id: (context.accounts.user(name) ?? context.accounts.organization(name))?.id ?? "0".repeat(24),
											name,
											type: context.accounts.organization(name) === null ? "user" : "org",
										},
										permissions: token.permissions,
									})),
									...(token.webhooks
										? [{ entity: { _id: user.id, name: user.name, type: "user" }, permissions: OWN_SETTINGS }]
										: []),
								],
								global: token.discussions ? ["discussion.write"] : [],
							},
						}
					: {}),
			},
		},
	};
}

export function userOverview(context: HubContext, user: User, startedAt: string): Record<string, unknown> {
	const owned = context.repos.all().filter((repo) => repo.record.namespace === user.name && !repo.record.private);
	const count = (type: string): number => owned.filter((repo) => repo.record.type === type).length;
	return {
		_id: user.id,
		avatarUrl: avatarUrl(context, user.name),
		fullname: user.fullname,
		isPro: false,
		user: user.name,
		type: "user",
		createdAt: startedAt,
		numModels: count("model"),
		numDatasets: count("dataset"),
		numSpaces: count("space"),
		orgs: [...user.orgs.keys()].map((name) => {
			const organization = context.accounts.organization(name);
			return {
				id: organization?.id ?? "",
				name,
				fullname: organization?.fullname ?? name,
				avatarUrl: avatarUrl(context, name),
			};
		}),
	};
}
