import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { sql } from "kysely";
import type { Database } from "../../src/db/database.ts";
import { onEveryDatabase } from "../support/databases.ts";
import { type MemberSite, memberSite } from "../support/member-site.ts";
import { consentOnHub } from "../support/oauth-person.ts";
import { type SiteBrowser, siteBrowser } from "../support/site-browser.ts";

const SESSION = "yaqa-session";
const ATTEMPT = "yaqa-sign-in";

await onEveryDatabase((databases, name) => {
	describe(`signing in, on ${name}`, { concurrency: false }, () => {
		let database: Database;
		let site: MemberSite;
		before(async () => {
			database = await (await databases()).open();
			site = await memberSite(database);
		});
		after(async () => {
			await site.close();
			await database.close();
		});

		const newBrowser = (): SiteBrowser => siteBrowser(site.url);
		async function signedIn(user: string): Promise<SiteBrowser> {
			const browser = newBrowser();
			const answer = await browser.signIn(user);
			assert.equal(answer.status, 303, await answer.text());
			return browser;
		}
		async function whoIs(browser: SiteBrowser): Promise<string | null> {
			const text = await (await browser.get("/help")).text();
			return /<form class="account"[^>]*>.*?<span>([^<]+)<\/span>/.exec(text)?.[1] ?? null;
		}
		async function refused(answer: Response, status: number, text: RegExp): Promise<void> {
			const page = await answer.text();
			assert.equal(answer.status, status, page);
			assert.match(page, text);
			assert.match(answer.headers.get("cache-control") ?? "", /no-store/);
		}

		test("somebody comes back signed in, to the page that they left, with a cookie that scripts cannot read", async () => {
			const browser = newBrowser();
			const page = await (await browser.get("/help")).text();
			assert.match(page, /<a href="\/auth\/sign-in"/);
			assert.equal(await whoIs(browser), null);
			const answer = await browser.signIn("alice", { returnTo: "/jobs?cursor=x" });
			assert.equal(answer.headers.get("location"), `${site.url}/jobs?cursor=x`);
			const cookie = answer.headers.getSetCookie().find((line) => line.startsWith(SESSION)) ?? "";
			assert.match(cookie, /; HttpOnly/);
			assert.match(cookie, /; SameSite=Lax/);
			assert.match(cookie, /; Path=\//);
			assert.doesNotMatch(cookie, /Secure/, "there is no https here");
			assert.equal(await whoIs(browser), "alice");
			const shown = await browser.get("/");
			assert.equal(shown.headers.get("cache-control"), "no-store");
			assert.match(shown.headers.get("vary") ?? "", /Cookie/);
			assert.match((await newBrowser().get("/")).headers.get("vary") ?? "", /Cookie/);
		});

		test("the page that the link stood on is come back to without being told", async () => {
			const browser = newBrowser();
			const there = await browser.get("/auth/sign-in", { headers: { Referer: `${site.url}/variants?q=x` } });
			const back = await browser.comeBack(await consentOnHub(there.headers.get("location") ?? "", "alice"));
			assert.equal(back.headers.get("location"), `${site.url}/variants?q=x`);
		});

		test("nobody is sent elsewhere after signing in", async () => {
			for (const returnTo of [
				"https://evil.example/",
				"//evil.example/",
				"/\\evil.example/",
				"/.//evil.example/",
				"\\\\evil.example",
				"/\t/evil.example/",
				"javascript:alert(1)",
				"/auth/sign-in",
				`/${"x".repeat(5000)}`,
			]) {
				const browser = newBrowser();
				const answer = await browser.signIn("bob", { returnTo });
				const location = new URL(answer.headers.get("location") ?? "");
				assert.equal(location.origin, site.url, returnTo);
				assert.ok(!location.pathname.startsWith("//"), returnTo);
			}
		});

		test("under https cookies are for this host alone and never sent in the clear", async () => {
			const secure = await memberSite(database, { publicUrl: () => "https://bot.example" });
			try {
				const answer = await fetch(`${secure.url}/auth/sign-in`, { redirect: "manual" });
				const [cookie = ""] = answer.headers.getSetCookie();
				assert.match(cookie, /^__Host-yaqa-sign-in=/);
				assert.match(cookie, /; Secure/);
			} finally {
				await secure.close();
			}
		});

		test("what the database keeps opens no session and reads nothing, and no log line holds a secret", async () => {
			const browser = await signedIn("alice");
			const id = browser.cookies.get(SESSION) ?? "";
			const { rows } = await sql<Record<string, unknown>>`select * from site_sessions`.execute(database.handle);
			const kept = JSON.stringify(rows);
			assert.ok(rows.length > 0);
			assert.ok(!kept.includes(id));
			assert.ok(!kept.includes("hf_oauth_"));
			const forger = newBrowser();
			forger.cookies.set(SESSION, String(rows[0]?.["id_hash"]));
			assert.equal(await whoIs(forger), null);
			const lines = site.logLines.join("\n");
			assert.match(lines, /Somebody signed in/);
			assert.ok(!lines.includes(id));
			assert.doesNotMatch(lines, /hf_oauth_|local-app-secret/);
		});

		test("an answer with another state, or without a beginning in this browser, signs nobody in", async () => {
			const browser = newBrowser();
			const back = await consentOnHub(await browser.beginSignIn(), "alice");
			back.searchParams.set("state", "forged");
			await refused(await browser.comeBack(back), 400, /You are not signed in/);
			assert.equal(await whoIs(browser), null);
			// The link that somebody else began and sends on.
			const other = newBrowser();
			const sent = await consentOnHub(await other.beginSignIn(), "bob");
			const victim = newBrowser();
			await refused(await victim.comeBack(sent), 400, /not begun in this browser/);
			assert.equal(await whoIs(victim), null);
			// A cookie that nobody sealed here.
			victim.cookies.set(ATTEMPT, Buffer.from(JSON.stringify({ state: "x" })).toString("base64url"));
			await refused(await victim.comeBack(sent), 400, /You are not signed in/);
		});

		test("an address that was come back to once is worth nothing, and ends what it began", async () => {
			const browser = newBrowser();
			const there = await browser.beginSignIn();
			const attempt = browser.cookies.get(ATTEMPT) ?? "";
			const back = await consentOnHub(there, "alice");
			assert.equal((await browser.comeBack(back)).status, 303);
			assert.equal(browser.cookies.has(ATTEMPT), false);
			await refused(await browser.comeBack(back), 400, /You are not signed in/);
			const thief = newBrowser();
			thief.cookies.set(ATTEMPT, attempt);
			await refused(await thief.comeBack(back), 400, /opened a second time/);
			assert.equal(await whoIs(thief), null);
		});

		test("a code that was made for another sign-in does not fit: its verifier and its nonce are another's", async () => {
			const mine = newBrowser();
			const own = await consentOnHub(await mine.beginSignIn(), "alice");
			const theirs = await consentOnHub(await newBrowser().beginSignIn(), "bob");
			own.searchParams.set("code", theirs.searchParams.get("code") ?? "");
			await refused(await mine.comeBack(own), 400, /You are not signed in/);
			// The same verifier, so that nothing but the nonce of the id token tells.
			const again = newBrowser();
			const there = new URL(await again.beginSignIn());
			there.searchParams.set("nonce", "another");
			await refused(await again.comeBack(await consentOnHub(there.href, "alice")), 400, /You are not signed in/);
			assert.match(site.logLines.join("\n"), /unexpected JWT claim value encountered \(nonce\)/);
			assert.equal(await whoIs(again), null);
		});

		test("who says no, or takes too long, is told so", async () => {
			const browser = newBrowser();
			const no = await consentOnHub(await browser.beginSignIn(), "alice", { decision: "deny" });
			await refused(await browser.comeBack(no), 403, /did not let this site know/);
			const slow = await consentOnHub(await browser.beginSignIn(), "alice");
			site.advance(601);
			await refused(await browser.comeBack(slow), 400, /longer than ten minutes/);
		});

		test("a session that somebody planted is never taken over, and signing in anew ends the one before", async () => {
			const attacker = await signedIn("bob");
			const planted = attacker.cookies.get(SESSION) ?? "";
			const victim = newBrowser();
			victim.cookies.set(SESSION, planted);
			assert.equal((await victim.signIn("alice")).status, 303);
			assert.notEqual(victim.cookies.get(SESSION), planted);
			assert.equal(await whoIs(victim), "alice");
			assert.equal(await whoIs(attacker), null, "what was planted is over");
			const chosen = newBrowser();
			chosen.cookies.set(SESSION, "x".repeat(43));
			await chosen.signIn("alice");
			assert.notEqual(chosen.cookies.get(SESSION), "x".repeat(43));
		});

		test("signing out ends the session for every copy of its cookie, and takes a form of its own", async () => {
			const browser = await signedIn("alice");
			const copy = newBrowser();
			copy.cookies.set(SESSION, browser.cookies.get(SESSION) ?? "");
			assert.equal(await whoIs(copy), "alice");
			assert.equal((await browser.get("/auth/sign-out")).status, 404);
			await refused(await browser.post("/auth/sign-out"), 403, /too old/);
			const token = await browser.formToken();
			await refused(
				await browser.post("/auth/sign-out", { token }, { Origin: "https://evil.example" }),
				403,
				/another site/,
			);
			await refused(await browser.post("/auth/sign-out", { token }, { Origin: "null" }), 403, /another site/);
			await refused(
				await browser.post("/auth/sign-out", { token: await (await signedIn("bob")).formToken() }),
				403,
				/too old/,
			);
			assert.equal(await whoIs(browser), "alice");
			const out = await browser.post("/auth/sign-out", { token });
			assert.equal(out.status, 303);
			assert.equal(browser.cookies.has(SESSION), false);
			assert.equal(await whoIs(copy), null);
		});

		test("a session ends with the Hub's token: by its time, or when the person takes it back", async () => {
			const browser = await signedIn("alice");
			assert.equal(await whoIs(browser), "alice");
			site.hub.revokeApps("alice");
			assert.equal(await whoIs(browser), "alice", "what was asked a moment ago still counts");
			site.advance(181);
			assert.equal(await whoIs(browser), null);
			const other = await signedIn("bob");
			site.advance(8 * 3600 + 1);
			assert.equal(await whoIs(other), null);
			const { rows } = await sql<{ count: number }>`select count(*)::int as count from site_sessions`.execute(
				database.handle,
			);
			await signedIn("carol");
			const after = await sql<{ count: number }>`select count(*)::int as count from site_sessions`.execute(
				database.handle,
			);
			assert.ok((rows[0]?.count ?? 0) > 1);
			assert.equal(after.rows[0]?.count, 1, "sessions that are over are forgotten");
		});

		test("while the Hub does not answer nobody is signed in, and everybody can be once it does", async () => {
			const fault = (path: string, kind: "status" | "disconnect") =>
				site.hub.faults.set({
					routes: [kind === "status" ? { kind, status: 503, path, times: 1 } : { kind, path, times: 1 }],
				});
			for (const kind of ["status", "disconnect"] as const) {
				const browser = newBrowser();
				const back = await consentOnHub(await browser.beginSignIn(), "alice");
				fault("/oauth/token", kind);
				await refused(await browser.comeBack(back), 503, /The Hub does not answer/);
				assert.equal(await whoIs(browser), null);
				const other = newBrowser();
				const again = await consentOnHub(await other.beginSignIn(), "alice");
				fault("/oauth/userinfo", kind);
				await refused(await other.comeBack(again), 503, /The Hub does not answer/);
			}
			const fresh = await memberSite(database);
			try {
				fresh.hub.faults.set({ routes: [{ kind: "disconnect", path: "/.well-known/", times: 1 }] });
				const answer = await fetch(`${fresh.url}/auth/sign-in`, { redirect: "manual" });
				assert.equal(answer.status, 503);
				assert.match(await answer.text(), /"error":"You cannot be signed in just now|You cannot be signed in just now/);
				const browser = siteBrowser(fresh.url);
				assert.equal((await browser.signIn("alice")).status, 303);
			} finally {
				await fresh.close();
			}
		});

		test("absurd cookies and parameters are a visitor's", async () => {
			for (const value of ["%00", "a b", "x".repeat(6000), "{}", "..", "\u00e4"]) {
				const answer = await fetch(`${site.url}/help`, { headers: { Cookie: `${SESSION}=${encodeURI(value)}` } });
				assert.equal(answer.status, 200, value);
				await answer.body?.cancel();
			}
			for (const query of ["", "?code=%00&state=%00", `?state=${"x".repeat(4000)}`, "?error=<script>"]) {
				const answer = await fetch(`${site.url}/auth/callback${query}`, { redirect: "manual" });
				assert.equal(answer.status, 400, query);
				assert.doesNotMatch(await answer.text(), /<script>[^<]/);
			}
		});
	});
});
