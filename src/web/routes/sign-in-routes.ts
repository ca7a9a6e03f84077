import type { Request, Response, Router } from "express";
import express from "express";
import { z } from "zod";
import type { Clock } from "../../clock.ts";
import type { SignInAttempt, SignInProvider } from "../../hub/sign-in-provider.ts";
import type { Log } from "../../log.ts";
import { parseJson } from "../../parse-json.ts";
import type { Person } from "../../records/person.ts";
import type { CookieJar } from "../sign-in/cookies.ts";
import { readForm } from "../sign-in/read-form.ts";
import { returnAddress } from "../sign-in/return-address.ts";
import { seal, unseal } from "../sign-in/seal.ts";
import type { Sessions } from "../sign-in/sessions.ts";
import type { Site } from "../site.ts";

export const CALLBACK_PATH = "/auth/callback";
const ATTEMPT_SECONDS = 600;
const PURPOSE = "sign-in attempt";

const Attempt = z.object({
	state: z.string(),
	nonce: z.string(),
	verifier: z.string(),
	returnTo: z.string(),
	until: z.number(),
});

export type SignInOptions = {
	readonly publicUrl: string;
	readonly provider: SignInProvider;
	/** Seals what is remembered between leaving for the Hub and coming back. */
	readonly secret: string;
	readonly sessions: Sessions;
	readonly sessionCookie: CookieJar;
	readonly attemptCookie: CookieJar;
	readonly personOf: (accessToken: string) => Promise<Person | null>;
	readonly signOut: (request: Request) => Promise<void>;
	/** The pages as the sender sees them. */
	readonly siteOf: (request: Request) => Promise<Site>;
	readonly clock: Clock;
	readonly log: Log;
};

/** The page that a link to sign in stood on. */
function pageBefore(request: Request, publicUrl: string): string | null {
	if (typeof request.query["returnTo"] === "string") return request.query["returnTo"];
	const from = request.get("referer") ?? "";
	if (!URL.canParse(from) || new URL(from).origin !== new URL(publicUrl).origin) return null;
	const { pathname, search } = new URL(from);
	return `${pathname}${search}`;
}

const REFUSALS = {
	denied: { status: 403, title: "You are not signed in", text: "You did not let this site know who you are." },
	refused: {
		status: 400,
		title: "You are not signed in",
		text: "The Hub did not confirm who you are, or this address was opened a second time. Sign in again.",
	},
	unreachable: {
		status: 503,
		title: "The Hub does not answer",
		text: "You cannot be signed in just now. Try again in a few minutes.",
	},
	lost: {
		status: 400,
		title: "You are not signed in",
		text: "This sign-in was not begun in this browser, took longer than ten minutes, or another one was begun since. Sign in again.",
	},
} as const;

/** `GET /auth/sign-in`, the Hub's way back, and `POST /auth/sign-out`. */
export function signInRoutes(options: SignInOptions): Router {
	const { publicUrl, provider, secret, sessions, sessionCookie, attemptCookie, siteOf, clock, log } = options;
	const { origin } = new URL(publicUrl);
	const router = express.Router();
	router.use("/auth", (_request, response, next) => {
		response.set("Cache-Control", "no-store");
		next();
	});

	async function refuse(request: Request, response: Response, reason: keyof typeof REFUSALS): Promise<void> {
		(await siteOf(request)).refuse(request, response, REFUSALS[reason]);
	}

	function readAttempt(request: Request): (SignInAttempt & { readonly returnTo: string }) | null {
		const text = unseal(secret, PURPOSE, attemptCookie.read(request) ?? "");
		const attempt = Attempt.safeParse(text === null ? null : parseJson(text));
		return attempt.success && attempt.data.until > clock.now().getTime() ? attempt.data : null;
	}

	router.get("/auth/sign-in", async (request, response) => {
		const returnTo = returnAddress(pageBefore(request, publicUrl), publicUrl);
		let begun: Awaited<ReturnType<SignInProvider["begin"]>>;
		try {
			begun = await provider.begin();
		} catch (error) {
			log.warn("Nobody can sign in: the Hub does not answer as a provider", { error });
			await refuse(request, response, "unreachable");
			return;
		}
		const remembered = { ...begun.attempt, returnTo, until: clock.now().getTime() + ATTEMPT_SECONDS * 1000 };
		attemptCookie.write(response, seal(secret, PURPOSE, JSON.stringify(remembered)), ATTEMPT_SECONDS);
		response.redirect(303, begun.url);
	});

	router.get(CALLBACK_PATH, async (request, response) => {
		const attempt = readAttempt(request);
		attemptCookie.clear(response);
		if (attempt === null) {
			await refuse(request, response, "lost");
			return;
		}
		const result = await provider.finish(new URL(request.originalUrl, origin).search, attempt);
		if (!result.ok) {
			log.warn("A sign-in came to nothing", { reason: result.reason, detail: result.detail });
			await refuse(request, response, result.reason);
			return;
		}
		const { subject, accessToken, seconds } = result;
		let person: Person | null;
		try {
			person = await options.personOf(accessToken);
		} catch (error) {
			log.warn("A sign-in came to nothing", { reason: "userinfo", error });
			await refuse(request, response, "unreachable");
			return;
		}
		if (person === null || person.subject !== subject) {
			await refuse(request, response, "refused");
			return;
		}
		// What the browser brought along, somebody else may have put there: it ends, and a new id takes its place.
		await options.signOut(request);
		const session = await sessions.open({ subject, name: person.name, accessToken, seconds });
		sessionCookie.write(response, session.id, session.seconds);
		log.info("Somebody signed in", { person: person.name });
		response.redirect(303, `${origin}${attempt.returnTo}`);
	});

	router.post("/auth/sign-out", async (request, response) => {
		const site = await siteOf(request);
		if ((await readForm(site, request, response, origin)) === null) return;
		await options.signOut(request);
		sessionCookie.clear(response);
		response.redirect(303, `${origin}/`);
	});
	return router;
}
