import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { holdJob } from "../../src/db/admission.ts";
import type { Database } from "../../src/db/database.ts";
import { getDelivery } from "../../src/db/deliveries.ts";
import { getJob } from "../../src/db/jobs.ts";
import type { JobRecord } from "../../src/records/job.ts";
import { readApiDescription } from "../support/api-answers.ts";
import { onEveryDatabase } from "../support/databases.ts";
import { call, createRepo } from "../support/local-hub-fixture.ts";
import { keepFailedDelivery, keepJob, keepVariant } from "../support/member-records.ts";
import { type MemberSite, memberSite } from "../support/member-site.ts";
import { type SiteBrowser, siteBrowser } from "../support/site-browser.ts";

const ALICE = "hf_alice_token";
const DAVE = "hf_dave_token";
const HOSTILE = `x/<script>alert(1)</script>"'\u202Egpj`;

await onEveryDatabase((databases, name) => {
	describe(`what signed-in people see and do, on ${name}`, { concurrency: false }, () => {
		let database: Database;
		let site: MemberSite;
		const variants: Record<string, string> = {};
		const jobs: Record<"secret" | "open" | "hidden" | "own", JobRecord> = Object.create(null);

		before(async () => {
			database = await (await databases()).open();
			site = await memberSite(database);
			await createRepo(site.hub, "acme/secret", ALICE, { private: true });
			await createRepo(site.hub, "acme/open", ALICE);
			await createRepo(site.hub, "alice/own", ALICE, { private: true });
			await createRepo(site.hub, "other/hidden", DAVE, { private: true });
			jobs.secret = await keepJob(database, "acme/secret", { isPrivate: true });
			jobs.open = await keepJob(database, "acme/open");
			jobs.hidden = await keepJob(database, "other/hidden", { isPrivate: true });
			jobs.own = await keepJob(database, "alice/own", { isPrivate: true });
			for (const [word, job] of Object.entries(jobs)) variants[word] = await keepVariant(database, job, "published");
		});
		after(async () => {
			await site.close();
			await database.close();
		});

		async function as(user: string | null, organizations: readonly string[] = ["acme", "other"]): Promise<SiteBrowser> {
			const browser = siteBrowser(site.url);
			if (user !== null) assert.equal((await browser.signIn(user, { organizations })).status, 303);
			return browser;
		}
		const pagesAbout = (word: keyof typeof jobs) => [
			"/",
			`/?q=${word}`,
			"/variants",
			`/variants?q=${word}`,
			"/jobs",
			`/m/${jobs[word].sourceRepo}`,
			`/jobs/${jobs[word].id}`,
			`/jobs/${jobs[word].id}/log`,
			`/v/${variants[word]}`,
			"/my",
			"/feed.atom",
			"/sitemap.xml",
			"/deliveries",
			"/operator",
		];
		/** Where a model of that name is shown, in pages and in JSON. */
		async function whereNamed(browser: SiteBrowser, word: keyof typeof jobs): Promise<readonly string[]> {
			const named: string[] = [];
			const told = new RegExp(`(acme|other|alice)(/|-of-)${word}|${jobs[word].id}`);
			for (const path of pagesAbout(word)) {
				for (const json of [false, true]) {
					const answer = await browser.get(path, { json });
					const text = await answer.text();
					// What is not there does not say so by name, but for the name that was asked for.
					if (answer.status === 200 && told.test(text)) named.push(path);
					else if (answer.status === 200 && /^\/(m|v|jobs)\/./.test(path)) named.push(path);
				}
			}
			return [...new Set(named)];
		}
		async function countOf(browser: SiteBrowser): Promise<{ count: number; gguf: number }> {
			const answer: unknown = await (await browser.get("/", { json: true })).json();
			const { count, facets } = answer as { count: number; facets: { container: { count: number }[] } };
			return { count, gguf: facets.container[0]?.count ?? 0 };
		}

		test("a private model is in no page, JSON, search, feed, map or count of anybody who may not read it", async () => {
			for (const user of [null, "bob", "dave"]) {
				const browser = await as(user);
				assert.deepEqual(await whereNamed(browser, "secret"), [], `secret, for ${user}`);
				assert.deepEqual(await whereNamed(browser, "own"), [], `own, for ${user}`);
				assert.deepEqual(await countOf(browser), user === "dave" ? { count: 2, gguf: 2 } : { count: 1, gguf: 1 });
			}
			const alice = await as("alice");
			assert.deepEqual(await whereNamed(alice, "hidden"), []);
			// What other sites show of it is what they show of a model that there never was.
			for (const user of [null, "bob"]) {
				const browser = await as(user);
				const badge = async (repo: string) => await (await browser.get(`/m/${repo}/badge.svg`)).text();
				assert.equal(await badge("acme/secret"), await badge("acme/nothing"));
				assert.notEqual(await badge("acme/open"), await badge("acme/nothing"));
				assert.equal((await browser.get("/m/acme/secret/plot.png")).status, 404);
			}
		});

		test("whom the Hub lets read it sees it everywhere, and nothing of it is for a cache", async () => {
			const alice = await as("alice");
			const elsewhere = ["/deliveries", "/operator"];
			const wanted = pagesAbout("secret").filter((path) => !elsewhere.includes(path));
			assert.deepEqual(await whereNamed(alice, "secret"), wanted);
			assert.deepEqual(await countOf(alice), { count: 3, gguf: 3 });
			for (const path of wanted) {
				const answer = await alice.get(path);
				assert.equal(answer.headers.get("cache-control"), "no-store", path);
				await answer.body?.cancel();
			}
			for (const path of ["/m/acme/secret/plot.png", "/m/acme/secret/badge.svg"]) {
				const answer = await alice.get(path);
				assert.equal(answer.status, 200, path);
				assert.equal(answer.headers.get("cache-control"), "no-store", path);
				await answer.body?.cancel();
			}
			assert.deepEqual(await whereNamed(await as(null), "secret"), [], "right after, somebody else");
			// How far a page shrinks tells of what stands in it.
			const seen = await alice.get("/?q=acme");
			assert.equal(seen.headers.get("content-encoding"), null);
			assert.equal((await (await as(null)).get("/?q=acme")).headers.get("content-encoding"), "gzip");
			const carol = await as("carol");
			assert.ok((await whereNamed(carol, "hidden")).includes("/jobs"), "whoever runs the bot sees all");
		});

		test("of an organisation that the app was not let into, nothing private is shown", async () => {
			const alice = await as("alice", []);
			assert.deepEqual(await whereNamed(alice, "secret"), []);
			assert.ok((await whereNamed(alice, "own")).includes("/"));
		});

		test("a private job's events go to those who may read the model, and end when they may no more", async () => {
			const path = `/jobs/${jobs.secret.id}/events`;
			for (const user of [null, "bob"]) {
				const answer = await (await as(user)).get(path);
				assert.equal(answer.status, 404);
				await answer.body?.cancel();
			}
			const alice = await as("alice");
			const stream = await alice.get(`${path}?view=parts`);
			assert.equal(stream.status, 200);
			assert.match(stream.headers.get("cache-control") ?? "", /no-store/);
			const reader = stream.body?.getReader();
			assert.ok(reader !== undefined);
			const out = await as("alice");
			out.cookies.set("yaqa-session", alice.cookies.get("yaqa-session") ?? "");
			const token = await out.formToken();
			assert.equal((await out.post("/auth/sign-out", { token })).status, 303);
			// It ends, or this waits until the test is ended.
			while (!(await reader.read()).done);
			assert.equal((await alice.get(path)).status, 404);
		});

		test("rights that the Hub takes away are gone here in minutes", async () => {
			await createRepo(site.hub, "acme/short", ALICE, { private: true });
			const job = await keepJob(database, "acme/short", { isPrivate: true });
			const alice = await as("alice");
			assert.equal((await alice.get(`/jobs/${job.id}`)).status, 200);
			const stream = await alice.get(`/jobs/${job.id}/events`);
			assert.equal(stream.status, 200);
			const gone = await call(`${site.hub.url}/api/repos/delete`, {
				method: "DELETE",
				token: ALICE,
				body: { name: "short", organization: "acme" },
			});
			assert.equal(gone.status, 200, gone.text);
			assert.equal((await alice.get(`/jobs/${job.id}`)).status, 200, "what was asked a moment ago still counts");
			site.advance(181);
			const reader = stream.body?.getReader();
			while (!(await reader?.read())?.done);
			assert.equal((await alice.get(`/jobs/${job.id}`)).status, 404);
			assert.equal((await alice.get(`/jobs/${jobs.secret.id}`)).status, 200);
		});

		test("when the Hub does not answer, nothing private is shown, and the page says so", async () => {
			const alice = await as("alice");
			assert.equal((await alice.get("/m/acme/secret")).status, 200);
			site.advance(181);
			site.hub.faults.set({ routes: [{ kind: "status", status: 503, path: "/oauth/userinfo", times: 2 }] });
			const answer = await alice.get("/");
			const text = await answer.text();
			assert.equal(answer.status, 200);
			assert.doesNotMatch(text, /acme\/secret/);
			assert.match(text, /The Hub does not answer just now/);
			assert.equal((await alice.get("/m/acme/secret")).status, 404);
			site.advance(11);
			assert.equal((await alice.get("/m/acme/secret")).status, 404, "asked again, and again without an answer");
			site.advance(11);
			assert.equal((await alice.get("/m/acme/secret")).status, 200);
			site.hub.faults.set({ routes: [{ kind: "status", status: 503, path: "/api/models", times: 1 }] });
			site.advance(181);
			assert.doesNotMatch(await (await alice.get("/")).text(), /acme\/secret/);
		});

		test("my models: those of my namespaces, private ones marked, as the API is described", async () => {
			const alice = await as("alice");
			const text = await (await alice.get("/my")).text();
			for (const repo of ["acme/secret", "acme/open", "alice/own"]) assert.match(text, new RegExp(`/m/${repo}"`));
			assert.doesNotMatch(text, /other\/hidden/);
			assert.match(text, /its members/);
			const api = await readApiDescription(site.url);
			const Cookie = [...alice.cookies].map(([key, value]) => `${key}=${value}`).join("; ");
			const twin = (await api.check("/my", "/my", 200, { Cookie })) as { models: { repo: string; private: boolean }[] };
			assert.ok(twin.models.some((one) => one.repo === "acme/secret" && one.private));
			const nobody = await as(null);
			const sent = await nobody.get("/my");
			assert.equal(sent.headers.get("location"), "/auth/sign-in?returnTo=/my");
			assert.equal((await nobody.get("/my", { json: true })).status, 404);
			assert.equal((await alice.get("/my?cursor=nonsense")).status, 200);
		});

		async function press(browser: SiteBrowser, job: JobRecord, action: string): Promise<number> {
			const token = await browser.formToken();
			const answer = await browser.post(`/jobs/${job.id}/${action}`, { token });
			await answer.text();
			return answer.status;
		}
		const isStopping = async (job: JobRecord) => (await getJob(database.handle, job.id))?.cancelRequested;
		const offered = async (browser: SiteBrowser, job: JobRecord) =>
			[...(await (await browser.get(`/jobs/${job.id}`)).text()).matchAll(/action="\/jobs\/[^/"]+\/([a-z]+)"/g)].map(
				([, action]) => action,
			);

		test("a job is cancelled by whoever has rights in the model, or alone asked for it, and by nobody else", async () => {
			const [alice, bob, dave] = [await as("alice"), await as("bob"), await as("dave")];
			const pushed = await keepJob(database, "acme/open");
			assert.deepEqual(await offered(bob, pushed), []);
			assert.equal(await press(bob, pushed, "cancel"), 403);
			assert.equal(await isStopping(pushed), false);
			assert.deepEqual(await offered(alice, pushed), ["cancel"]);
			assert.equal(await press(alice, pushed, "cancel"), 303);
			assert.equal(await isStopping(pushed), true);
			assert.deepEqual(await offered(alice, pushed), [], "once is enough");
			const asked = await keepJob(database, "acme/open", { requester: "Bob" });
			assert.equal(await press(dave, asked, "cancel"), 403);
			assert.deepEqual(await offered(bob, asked), ["cancel"]);
			assert.equal(await press(bob, asked, "cancel"), 303);
			assert.equal(await isStopping(asked), true);
			assert.equal(await press(bob, jobs.secret, "cancel"), 404, "what is not there for them cannot be cancelled");
			assert.equal(await isStopping(jobs.secret), false);
			const over = await keepJob(database, "acme/open", { state: "failed" });
			const late = await alice.post(`/jobs/${over.id}/cancel`, { token: await alice.formToken() });
			assert.equal(late.status, 409);
			assert.match(await late.text(), /The job is failed already/);
		});

		test("nothing is changed by a form from elsewhere, of another session, of nobody, or of another kind", async () => {
			const alice = await as("alice");
			const job = await keepJob(database, "acme/open");
			const path = `/jobs/${job.id}/cancel`;
			const token = await alice.formToken();
			const foreign = await (await as("alice")).formToken();
			const tries: readonly [string, number, Promise<Response>][] = [
				["no token", 403, alice.post(path)],
				["another session's token", 403, alice.post(path, { token: foreign })],
				["a changed token", 403, alice.post(path, { token: `${token}x` })],
				["another site", 403, alice.post(path, { token }, { Origin: "https://evil.example" })],
				["a hidden origin", 403, alice.post(path, { token }, { Origin: "null" })],
				["the same host by another port", 403, alice.post(path, { token }, { Origin: "http://127.0.0.1:1" })],
				["the token in the address", 403, alice.post(`${path}?token=${token}`)],
				["nobody", 401, (await as(null)).post(path, { token })],
				["JSON", 415, alice.post(path, { token }, { "Content-Type": "application/json" })],
				["plain text", 415, alice.post(path, { token }, { "Content-Type": "text/plain" })],
				["a long form", 413, alice.post(path, { token, more: "x".repeat(20_000) })],
				["an unknown action", 405, alice.post(`/jobs/${job.id}/publish`, { token })],
				["no job's number", 405, alice.post("/jobs/1/cancel", { token })],
			];
			for (const [what, status, answer] of tries) {
				const { status: given } = await answer;
				assert.equal(given, status, what);
			}
			const withoutOrigin = await fetch(`${site.url}${path}`, {
				method: "POST",
				body: new URLSearchParams({ token }),
				headers: {
					Cookie: `yaqa-session=${alice.cookies.get("yaqa-session")}`,
					"Sec-Fetch-Site": "cross-site",
				},
			});
			assert.equal(withoutOrigin.status, 403);
			assert.equal((await alice.get(path)).status, 404);
			assert.equal(await isStopping(job), false);
			const good = await alice.post(path, { token }, { Accept: "application/json" });
			assert.equal(good.status, 200);
			assert.equal(await isStopping(job), true);
		});

		test("a job is tried again by whoever has rights, not by who asked for it", async () => {
			const job = await keepJob(database, "acme/open", { state: "failed", requester: "bob" });
			await keepVariant(database, job, "wanted");
			const [alice, bob] = [await as("alice"), await as("bob")];
			assert.deepEqual(await offered(bob, job), []);
			assert.equal(await press(bob, job, "retry"), 403);
			assert.equal((await getJob(database.handle, job.id))?.state, "failed");
			assert.deepEqual(await offered(alice, job), ["retry"]);
			assert.equal(await press(alice, job, "retry"), 303);
			assert.equal((await getJob(database.handle, job.id))?.state, "planned");
			assert.ok(site.woken.some((work) => work.kind === "step" && work.jobId === job.id));
		});

		test("what costs more than jobs may is let start by whoever runs the bot alone", async () => {
			const job = await keepJob(database, "acme/open", { state: "waiting" });
			await holdJob(database.handle, job.id, new Date(Date.now() + 86_400_000));
			const [alice, carol] = [await as("alice"), await as("carol")];
			assert.deepEqual(await offered(alice, job), ["cancel"]);
			assert.equal(await press(alice, job, "approve"), 403);
			assert.notEqual((await getJob(database.handle, job.id))?.heldUntil, null);
			assert.deepEqual(await offered(carol, job), ["cancel", "approve"]);
			assert.equal(await press(carol, job, "approve"), 303);
			assert.equal((await getJob(database.handle, job.id))?.heldUntil, null);
		});

		test("the operator's page is there for operators alone, and has a failed delivery worked on anew", async () => {
			const { handle } = database;
			const id = await keepFailedDelivery(database, HOSTILE, HOSTILE);
			for (const user of [null, "bob", "alice"]) {
				const browser = await as(user);
				assert.equal((await browser.get("/operator")).status, 404);
				const token = user === null ? "" : await browser.formToken();
				const answer = await browser.post(`/operator/deliveries/${id}/replay`, { token });
				assert.equal(answer.status, 405);
			}
			assert.equal((await getDelivery(handle, id))?.outcome, "failed");
			const carol = await as("carol");
			const text = await (await carol.get("/operator")).text();
			assert.match(text, new RegExp(`action="/operator/deliveries/${id}/replay"`));
			assert.doesNotMatch(text, /<script>alert|\u202E/);
			for (const heading of ["Queue", "Budget", "Deliveries", "What is kept", "Isolation of runs"]) {
				assert.match(text, new RegExp(`<h2[^>]*>${heading}</h2>`));
			}
			const api = await readApiDescription(site.url);
			const Cookie = [...carol.cookies].map(([key, value]) => `${key}=${value}`).join("; ");
			await api.check("/operator", "/operator", 200, { Cookie });
			const path = `/operator/deliveries/${id}/replay`;
			assert.equal((await carol.post(path)).status, 403, "a form without its token");
			assert.equal((await getDelivery(handle, id))?.outcome, "failed");
			const token = await carol.formToken();
			assert.equal((await carol.post(path, { token })).status, 303);
			assert.equal((await getDelivery(handle, id))?.outcome, "pending");
			assert.ok(site.woken.some((work) => work.kind === "delivery" && work.deliveryId === id));
			assert.equal((await carol.post(path, { token })).status, 409, "it is under way");
			assert.equal((await carol.post("/operator/deliveries/x/replay", { token })).status, 409);
		});
	});
});
