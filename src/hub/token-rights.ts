import { z } from "zod";
import type { HubWriteAccess } from "./hub-access.ts";
import { requestJson } from "./request-json.ts";

const Answer = z.object({
	name: z.string(),
	orgs: z.array(z.object({ name: z.string(), roleInOrg: z.string().optional() })).default([]),
	auth: z
		.object({
			accessToken: z
				.object({
					role: z.string(),
					fineGrained: z
						.object({
							global: z.array(z.string()).default([]),
							canReadGatedRepos: z.boolean().default(false),
							scoped: z.array(
								z.object({
									entity: z.object({ type: z.string(), name: z.string().optional() }),
									permissions: z.array(z.string()),
								}),
							),
						})
						.nullish(),
				})
				.nullish(),
		})
		.nullish(),
});

/** Whose a token is and what it may do, as the Hub tells its owner. */
export type TokenRights = {
	readonly account: string;
	/** `read`, `write` or `fineGrained`; `null` where the Hub does not say, as of OAuth tokens. */
	readonly role: string | null;
	/** The organisations of the account, with its role there. */
	readonly organisations: ReadonlyMap<string, string | null>;
	/** Of a fine-grained token: what it may do anywhere, and by namespace or repo. */
	readonly anywhere: readonly string[];
	readonly scoped: ReadonlyMap<string, readonly string[]>;
};

export async function tokenRights(access: HubWriteAccess): Promise<TokenRights> {
	const who = await requestJson({ ...access, path: "/api/whoami-v2", schema: Answer });
	const token = who.auth?.accessToken ?? null;
	const scoped = new Map<string, readonly string[]>();
	for (const { entity, permissions } of token?.fineGrained?.scoped ?? []) {
		const name = entity.name ?? (entity.type === "user" ? who.name : null);
		if (name !== null) scoped.set(name, [...(scoped.get(name) ?? []), ...permissions]);
	}
	return {
		account: who.name,
		role: token?.role ?? null,
		organisations: new Map(who.orgs.map(({ name, roleInOrg }) => [name, roleInOrg ?? null])),
		anywhere: token?.fineGrained?.global ?? [],
		scoped,
	};
}

/** Whether the token itself may do that in the namespace; what the account may do there is another question. */
export function isGranted(rights: TokenRights, namespace: string, permission: string): boolean {
	switch (rights.role) {
		case "write":
			return true;
		case "read":
			return permission.endsWith(".read");
		case "fineGrained":
			return rights.anywhere.includes(permission) || (rights.scoped.get(namespace) ?? []).includes(permission);
		default:
			return true;
	}
}
