import type { Clock } from "../../clock.ts";
import type { SiteSession } from "../../records/site-session.ts";
import { newSessionId, seal, sessionHash, unseal } from "./seal.ts";

/** What keeps sessions, as plain functions. */
export type SessionStore = {
	insert(session: SiteSession): Promise<void>;
	get(idHash: string): Promise<SiteSession | null>;
	remove(idHash: string): Promise<void>;
};

/** A session with what its browser alone could open. */
export type OpenSession = SiteSession & { readonly id: string; readonly accessToken: string };

export type Sessions = {
	readonly open: (person: {
		readonly subject: string;
		readonly name: string;
		readonly accessToken: string;
		readonly seconds: number;
	}) => Promise<{ readonly id: string; readonly seconds: number }>;
	readonly find: (id: string) => Promise<OpenSession | null>;
	readonly isOpen: (idHash: string) => Promise<boolean>;
	readonly close: (id: string) => Promise<void>;
};

const PURPOSE = "session token";
/** However long the Hub's token would last. */
const LONGEST_SECONDS = 24 * 3600;

/**
 * Who is signed in. Browsers hold an id that nobody else has; the store knows its hash, and the Hub's token sealed with
 * it: whoever reads the database can neither come as somebody nor read for them.
 */
export function createSessions(store: SessionStore, clock: Clock): Sessions {
	return {
		async open({ subject, name, accessToken, seconds: asked }) {
			const id = newSessionId();
			const seconds = Math.max(60, Math.min(asked, LONGEST_SECONDS));
			const now = clock.now();
			await store.insert({
				idHash: sessionHash(id),
				subject,
				name,
				sealedToken: seal(id, PURPOSE, accessToken),
				signedInAt: now,
				expiresAt: new Date(now.getTime() + seconds * 1000),
			});
			return { id, seconds };
		},
		async find(id) {
			const session = await store.get(sessionHash(id));
			if (session === null) return null;
			const accessToken = unseal(id, PURPOSE, session.sealedToken);
			return accessToken === null ? null : { ...session, id, accessToken };
		},
		isOpen: async (idHash) => (await store.get(idHash)) !== null,
		close: (id) => store.remove(sessionHash(id)),
	};
}
