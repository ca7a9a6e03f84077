import type { Request } from "express";
import type { Clock } from "../../clock.ts";
import type { Audience } from "../../db/visibility.ts";
import type { Log } from "../../log.ts";
import type { Person } from "../../records/person.ts";
import type { Pages } from "../pages.ts";
import type { CookieJar } from "./cookies.ts";
import { createRights, type RightsAnswer } from "./rights-of-person.ts";
import { formToken, sessionHash } from "./seal.ts";
import type { OpenSession, Sessions } from "./sessions.ts";
import { isNamedOperator, type Viewer } from "./viewer.ts";

/** What the Hub and the database tell about signed-in people. */
export type PersonSources = {
	readonly personOf: (accessToken: string) => Promise<Person | null>;
	readonly listPrivate: (accessToken: string, namespace: string) => Promise<readonly string[]>;
	readonly privateSources: (namespaces: readonly string[]) => Promise<readonly string[]>;
};

type VisitorsOptions = PersonSources & {
	readonly sessions: Sessions;
	readonly cookie: CookieJar;
	readonly operators: readonly string[];
	readonly pagesFor: (viewer: () => Viewer, audience: () => Promise<Audience>) => Pages;
	readonly clock: Clock;
	readonly log: Log;
};

type Visitor = {
	readonly pages: Pages;
	readonly rights: () => Promise<RightsAnswer>;
	viewer: Viewer;
};

export type Visitors = {
	/** The pages of who sends this; `null`: nobody is signed in. */
	readonly pagesOf: (request: Request) => Promise<Pages | null>;
	/** Ends the session that a request brings, with its event streams. */
	readonly signOut: (request: Request) => Promise<void>;
	readonly clients: () => number;
	readonly close: () => void;
};

/** Pages that are kept ready for who is signed in; the least recently seen go first. */
const MAXIMUM_KEPT = 500;

function personOf(session: OpenSession, answer: RightsAnswer): Person {
	return answer.kind === "known"
		? answer.rights.person
		: { subject: session.subject, name: session.name, organizations: [] };
}

function viewerOf(session: OpenSession, answer: RightsAnswer, operators: readonly string[]): Viewer {
	const person = personOf(session, answer);
	return {
		...person,
		isOperator: isNamedOperator(operators, person),
		formToken: formToken(session.id),
		isCertain: answer.kind === "known",
	};
}

/** Who is signed in, each with pages of their own: nothing of them is shared with anybody else. */
export function createVisitors(options: VisitorsOptions): Visitors {
	const { sessions, cookie, operators, clock, log } = options;
	const kept = new Map<string, Visitor>();

	function forget(hash: string): void {
		kept.get(hash)?.pages.streams.close();
		kept.delete(hash);
	}

	function makeRoom(): void {
		for (const [hash, visitor] of kept) {
			if (kept.size < MAXIMUM_KEPT) return;
			if (visitor.pages.streams.clients() === 0) kept.delete(hash);
		}
	}

	function enter(session: OpenSession): Visitor {
		makeRoom();
		const rights = createRights({
			...options,
			accessToken: session.accessToken,
			subject: session.subject,
			isOpen: () => sessions.isOpen(session.idHash),
		});
		const audience = async (): Promise<Audience> => {
			const answer = await rights();
			if (answer.kind === "revoked" || session.expiresAt <= clock.now()) return "everybody";
			if (isNamedOperator(operators, personOf(session, answer))) return "operator";
			return answer.kind === "known" ? { reads: answer.rights.reads } : "everybody";
		};
		const visitor: Visitor = {
			pages: options.pagesFor(() => visitor.viewer, audience),
			rights,
			viewer: viewerOf(session, { kind: "unknown" }, operators),
		};
		return visitor;
	}

	return {
		async pagesOf(request) {
			const id = cookie.read(request);
			if (id === null) return null;
			const hash = sessionHash(id);
			const session = await sessions.find(id);
			if (session === null) {
				forget(hash);
				return null;
			}
			const visitor = kept.get(hash) ?? enter(session);
			// Last in the order of the map: seen just now.
			kept.delete(hash);
			kept.set(hash, visitor);
			const answer = await visitor.rights();
			if (answer.kind === "revoked") {
				log.info("A session ended, since the Hub no longer takes its token", { person: session.name });
				await sessions.close(id);
				forget(hash);
				return null;
			}
			visitor.viewer = viewerOf(session, answer, operators);
			return visitor.pages;
		},
		async signOut(request) {
			const id = cookie.read(request);
			if (id === null) return;
			await sessions.close(id);
			forget(sessionHash(id));
		},
		clients: () => [...kept.values()].reduce((sum, visitor) => sum + visitor.pages.streams.clients(), 0),
		close: () => {
			for (const hash of [...kept.keys()]) forget(hash);
		},
	};
}
