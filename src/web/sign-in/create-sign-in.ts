import type { Request, Router } from "express";
import type { Clock } from "../../clock.ts";
import type { Audience } from "../../db/visibility.ts";
import type { SignInProvider } from "../../hub/sign-in-provider.ts";
import type { Log } from "../../log.ts";
import type { WebData } from "../data.ts";
import type { Pages } from "../pages.ts";
import { signInRoutes } from "../routes/sign-in-routes.ts";
import type { Site } from "../site.ts";
import { createCookie } from "./cookies.ts";
import { createSessions, type SessionStore } from "./sessions.ts";
import type { Viewer } from "./viewer.ts";
import { createVisitors, type PersonSources } from "./visitors.ts";

/** What signing in is built from. */
export type SignInSetup = PersonSources & {
	/** Where this site is reached: the Hub sends people back there, and nowhere else. */
	readonly publicUrl: string;
	readonly provider: SignInProvider;
	/** The app's own secret. */
	readonly secret: string;
	readonly store: SessionStore;
	readonly operators: readonly string[];
	readonly dataFor: (audience: () => Promise<Audience>) => WebData;
};

export type SignIn = {
	readonly router: Router;
	/** The pages of who sends this; `null`: nobody is signed in. */
	readonly pagesOf: (request: Request) => Promise<Pages | null>;
	readonly clients: () => number;
	readonly close: () => void;
};

export function createSignIn(
	setup: SignInSetup,
	around: {
		readonly everybody: Site;
		readonly pagesFor: (viewer: () => Viewer, audience: () => Promise<Audience>) => Pages;
		readonly clock: Clock;
		readonly log: Log;
	},
): SignIn {
	const { publicUrl, provider, secret, store, operators } = setup;
	const { everybody, pagesFor, clock, log } = around;
	const isSecure = publicUrl.startsWith("https:");
	const sessionCookie = createCookie("yaqa-session", isSecure);
	const sessions = createSessions(store, clock);
	const visitors = createVisitors({ ...setup, sessions, cookie: sessionCookie, operators, pagesFor, clock, log });
	const router = signInRoutes({
		publicUrl,
		provider,
		secret,
		sessions,
		sessionCookie,
		attemptCookie: createCookie("yaqa-sign-in", isSecure),
		personOf: setup.personOf,
		signOut: visitors.signOut,
		siteOf: async (request) => (await visitors.pagesOf(request))?.site ?? everybody,
		clock,
		log,
	});
	return { router, pagesOf: visitors.pagesOf, clients: visitors.clients, close: visitors.close };
}
