import type { SiteSession } from "../records/site-session.ts";
import type { Handle } from "./database.ts";
import { storableText } from "./storable.ts";

/** Keeps a session, and forgets those that are over. */
export async function insertSiteSession(handle: Handle, session: SiteSession): Promise<void> {
	await handle.deleteFrom("site_sessions").where("expires_at", "<=", session.signedInAt).execute();
	await handle
		.insertInto("site_sessions")
		.values({
			id_hash: session.idHash,
			subject: storableText(session.subject),
			person: storableText(session.name),
			sealed_token: session.sealedToken,
			signed_in_at: session.signedInAt,
			expires_at: session.expiresAt,
		})
		.execute();
}

/** `null`: there is none, or it is over. */
export async function getSiteSession(handle: Handle, idHash: string, now: Date): Promise<SiteSession | null> {
	const row = await handle
		.selectFrom("site_sessions")
		.selectAll()
		.where("id_hash", "=", idHash)
		.where("expires_at", ">", now)
		.executeTakeFirst();
	return row === undefined
		? null
		: {
				idHash: row.id_hash,
				subject: row.subject,
				name: row.person,
				sealedToken: row.sealed_token,
				signedInAt: row.signed_in_at,
				expiresAt: row.expires_at,
			};
}

export async function deleteSiteSession(handle: Handle, idHash: string): Promise<void> {
	await handle.deleteFrom("site_sessions").where("id_hash", "=", idHash).execute();
}
