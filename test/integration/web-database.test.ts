import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { z } from "zod";
import { queuePlace, setJobEstimate } from "../../src/db/admission.ts";
import { countModels } from "../../src/db/catalogue.ts";
import { dataVersion } from "../../src/db/data-version.ts";
import type { Database } from "../../src/db/database.ts";
import { insertDelivery, leaseDelivery, reviveDelivery, settleDelivery } from "../../src/db/deliveries.ts";
import { insertJob } from "../../src/db/jobs.ts";
import { setKnownHead } from "../../src/db/sweeps.ts";
import {
	insertVariant,
	listVariantsOfSource,
	publishVariantRow,
	retireVariants,
	stageVariant,
} from "../../src/db/variants.ts";
import { setSourceVisibility } from "../../src/db/visibility.ts";
import { parseRecipe } from "../../src/protocol/recipe.ts";
import { databaseData } from "../../src/web/database-data.ts";
import { readApiDescription } from "../support/api-answers.ts";
import { onEveryDatabase } from "../support/databases.ts";
import { makeManifest, NOW, SECRET, startSite, type TestSite } from "../support/web-fixtures.ts";

const SHA = "a".repeat(40);
const VARIANTS = 30;

const NAMED = [
	{
		repo: "lab/Model-77-7B-Instruct",
		recipe: "gguf:q4_k",
		architecture: "Qwen3ForCausalLM",
		parameters: 7.6e9,
		license: "mit",
	},
	{
		repo: "lab/Model-78-7B",
		recipe: "onnx:q8",
		architecture: "LlamaForCausalLM",
		parameters: 7e9,
		license: "apache-2.0",
	},
	{ repo: "other/tiny", recipe: "w4a16", architecture: "LlamaForCausalLM", parameters: 1e8, license: "mit" },
	{
		repo: "secret/model-77-7b",
		recipe: "gguf:q4_0",
		architecture: "LlamaForCausalLM",
		parameters: 7e9,
		license: "mit",
	},
] as const;

await onEveryDatabase((databases, name) => {
	describe(`pages on ${name}`, { concurrency: false }, () => {
		let database: Database;
		let site: TestSite;
		after(async () => {
			await site.close();
			await database.close();
		});

		before(async () => {
			database = await (await databases()).open();
			const data = databaseData({
				audience: "everybody",
				database,
				clock: { now: () => NOW },
			});
			site = await startSite(data, {
				storeDelivery: async (delivery) => {
					const { id, stored } = await insertDelivery(database.handle, { ...delivery, id: randomUUID() });
					return { id, duplicate: !stored };
				},
			});
		});

		async function publishNamed(named: (typeof NAMED)[number]): Promise<void> {
			const id = randomUUID();
			const { repo, architecture, parameters, license } = named;
			const source = { repo, sha: SHA, architecture, parameters, weightBytes: 2 * parameters };
			const isPrivate = repo.startsWith("secret/");
			const facts = { ...source, license, gated: false, private: isPrivate, tags: [] };
			const job = {
				sourceRepo: repo,
				sourceSha: SHA,
				state: "planned",
				statusText: "Planned.",
				refusal: null,
			} as const;
			await insertJob(database.handle, { id, ...job, facts, now: NOW });
			const parsed = parseRecipe(named.recipe);
			assert.ok(parsed.ok);
			const targetRepo = `yaqa-bot/${repo.split("/")[1]}-YAQA`;
			const of = { sourceRepo: repo, sourceSha: SHA, recipe: parsed.recipe, jobId: id, targetRepo, now: NOW };
			const variant = await insertVariant(database.handle, { id: randomUUID(), ...of });
			const manifest = makeManifest({ recipe: named.recipe, repo, sha: SHA, kl: 0.02, bytes: parameters / 2 });
			await stageVariant(database.handle, { id: variant.id, manifest });
			await publishVariantRow(database.handle, { variant, targetSha: SHA, now: NOW });
			await setSourceVisibility(database.handle, { repo, private: isPrivate, gated: "no", now: NOW });
		}

		async function found(address: string): Promise<readonly string[]> {
			const response = await fetch(`${site.url}${address}`, { headers: { Accept: "application/json" } });
			assert.equal(response.status, 200, address);
			const list = (await response.json()) as { models: { repo: string }[]; similar: boolean };
			return [...(list.similar ? ["similar:"] : []), ...list.models.map((model) => model.repo).sort()];
		}

		test("models are found by words, aliases and pasted addresses, and by every facet", async () => {
			for (const named of NAMED) await publishNamed(named);
			const [seventySeven, seventyEight, tiny] = NAMED.map(({ repo }) => repo);
			const expected: readonly (readonly [string, readonly (string | undefined)[]])[] = [
				["q=Model+77+7B", [seventySeven]],
				["q=model77", [seventySeven]],
				["q=7b+model", [seventySeven, seventyEight]],
				["q=Q4_K_M", [seventySeven]],
				["q=q4_k", [seventySeven]],
				["q=4-bit+model", [seventySeven]],
				["q=4bit", [seventySeven, tiny]],
				["q=8+bits", [seventyEight]],
				["q=vllm", [tiny]],
				["q=ollama", [seventySeven]],
				["q=qwen3", [seventySeven]],
				[`q=${encodeURIComponent("https://huggingface.co/lab/Model-77-7B-Instruct/tree/main?x=1#y")}`, [seventySeven]],
				[`q=${encodeURIComponent("hf.co/yaqa-bot/tiny-YAQA")}`, [tiny]],
				[`q=${encodeURIComponent(`${site.url}/m/lab/Model-78-7B`)}`, [seventyEight]],
				["q=instrukt+model", ["similar:", seventySeven]],
				["family=Qwen3", [seventySeven]],
				["license=mit", [seventySeven, tiny]],
				["parameters=10b&container=onnx", [seventyEight]],
				["bits=4&size=2GB", [tiny]],
				["q=nothinglikethis+xyzzy", []],
				["q=%00%27%3Bdrop+table+variants--", []],
				["q=%26%7C%21%28%29%3A%2A", [seventySeven, seventyEight, tiny]],
			];
			for (const [query, repos] of expected) assert.deepEqual(await found(`/?${query}`), repos, query);
			assert.deepEqual(await found("/?q=secret"), [], "what is private is not there");
			const counts = await countModels(database.handle, {
				...{ words: [], container: null, bits: null, family: null, license: "mit", parameters: null },
				...{ mostBytes: null, fitsBytes: null, since: null, audience: "everybody", similar: false },
			});
			assert.equal(counts.models, 2);
			assert.deepEqual(counts.facets.bits, [{ value: "4", count: 2 }]);
		});

		test("a model is in the catalogue for as long as something of it is current", async () => {
			const variants = await listVariantsOfSource(database.handle, "other/tiny");
			await retireVariants(
				database.handle,
				variants.map((variant) => variant.id),
			);
			assert.deepEqual(await found("/?q=tiny"), []);
			await database.handle
				.updateTable("variants")
				.set({ current: true })
				.where("source_repo", "=", "other/tiny")
				.execute();
			assert.deepEqual(await found("/?q=tiny"), ["other/tiny"]);
			for (const { repo } of NAMED)
				await database.handle.deleteFrom("variants").where("source_repo", "=", repo).execute();
			assert.deepEqual(await found("/"), []);
		});

		test("kept pages and their counts follow what is published, retracted, hidden and shown again", async () => {
			const repo = NAMED[2].repo;
			const look = async (address: string) => {
				const response = await fetch(`${site.url}${address}`, { headers: { Accept: "application/json" } });
				return { status: response.status, text: await response.text() };
			};
			/** Twice, so that the second answer may be the first one's. */
			const assertShown = async (isThere: boolean, when: string): Promise<void> => {
				for (const turn of ["first", "again"]) {
					const where = `${when}, ${turn}`;
					const catalogue = z
						.object({ count: z.int(), facets: z.object({ container: z.array(z.object({ value: z.string() })) }) })
						.parse(JSON.parse((await look("/")).text));
					assert.equal(catalogue.count, isThere ? 1 : 0, where);
					assert.deepEqual(
						catalogue.facets.container.map(({ value }) => value),
						isThere ? ["compressed-tensors"] : [],
						where,
					);
					for (const address of ["/", "/variants", "/feed.atom", "/sitemap.xml"]) {
						assert.equal((await look(address)).text.includes(repo), isThere, `${address} ${where}`);
					}
				}
			};
			const modelOf = async () => {
				const { status, text } = await look(`/m/${repo}`);
				return status === 404
					? null
					: z.object({ variants: z.array(z.object({ state: z.string() })) }).parse(JSON.parse(text)).variants.length;
			};
			const visibility = async (isPrivate: boolean) =>
				await setSourceVisibility(database.handle, { repo, private: isPrivate, gated: "no", now: NOW });
			await assertShown(false, "before");
			await publishNamed(NAMED[2]);
			await assertShown(true, "published");
			assert.equal(await modelOf(), 1);
			await visibility(true);
			await assertShown(false, "hidden");
			assert.equal(await modelOf(), null, "hidden");
			await visibility(false);
			await assertShown(true, "shown again");
			assert.equal(await modelOf(), 1, "shown again");
			await assert.rejects(
				database.transaction(async (tx) => {
					await tx.deleteFrom("variants").where("source_repo", "=", repo).execute();
					throw new Error("Rolled back.");
				}),
			);
			await assertShown(true, "after a transaction that came to nothing");
			const [variant] = await listVariantsOfSource(database.handle, repo);
			await retireVariants(database.handle, [variant?.id ?? ""]);
			await assertShown(false, "retracted");
			assert.equal(await modelOf(), 0, "retracted");
			await database.handle.deleteFrom("variants").where("source_repo", "=", repo).execute();
		});

		test("what is written before its transaction ends is never kept", async () => {
			const repo = NAMED[1].repo;
			const catalogue = { kind: "catalogue" } as const;
			await publishNamed(NAMED[1]);
			const before = await dataVersion(database.handle, catalogue);
			const changing = Promise.withResolvers<void>();
			const looked = Promise.withResolvers<void>();
			const done = database.transaction(async (tx) => {
				await tx.deleteFrom("variants").where("source_repo", "=", repo).execute();
				changing.resolve();
				await looked.promise;
			});
			await changing.promise;
			// The embedded database lets nobody look before the transaction has ended.
			if (database.kind === "postgres") assert.equal(await dataVersion(database.handle, catalogue), before);
			looked.resolve();
			await done;
			assert.notEqual(await dataVersion(database.handle, catalogue), before);
			assert.deepEqual(await found("/"), []);
		});

		test("published variants fill pages that lead to one another without a gap or a repeat", async () => {
			const jobId = randomUUID();
			await insertJob(database.handle, {
				id: jobId,
				sourceRepo: "demo/model-0",
				sourceSha: SHA,
				state: "planned",
				statusText: "Planned.",
				refusal: null,
				facts: null,
				now: NOW,
			});
			const parsed = parseRecipe("gguf:q4_0");
			assert.ok(parsed.ok);
			for (let index = 0; index < VARIANTS; index++) {
				const sourceRepo = `demo/model-${index}`;
				const variant = await insertVariant(database.handle, {
					id: randomUUID(),
					sourceRepo,
					sourceSha: SHA,
					recipe: parsed.recipe,
					jobId,
					targetRepo: `yaqa-bot/model-${index}-YAQA-GGUF`,
					now: NOW,
				});
				const manifest = makeManifest({
					recipe: "gguf:q4_0",
					repo: sourceRepo,
					sha: SHA,
					kl: 0.01 + ((index * 7) % VARIANTS) / 1000,
					bytes: 1_000_000 + index,
				});
				await stageVariant(database.handle, { id: variant.id, manifest });
				await publishVariantRow(database.handle, { variant, targetSha: SHA, now: NOW });
			}
			for (const sort of ["newest", "kl", "size"]) {
				const seen: { source: { repo: string }; klNats: { mean: number } }[] = [];
				for (let address: string | null = `/variants?sort=${sort}`; address !== null; ) {
					const response = await fetch(`${site.url}${address}`, { headers: { Accept: "application/json" } });
					const page = (await response.json()) as { variants: typeof seen; nextCursor: string | null };
					seen.push(...page.variants);
					assert.ok(page.variants.length > 0);
					address = page.nextCursor === null ? null : `/variants?sort=${sort}&cursor=${page.nextCursor}`;
				}
				assert.equal(seen.length, VARIANTS);
				assert.equal(new Set(seen.map((row) => row.source.repo)).size, VARIANTS);
				if (sort === "kl") {
					const means = seen.map((row) => row.klNats.mean);
					assert.deepEqual(
						means,
						means.toSorted((one, other) => one - other),
					);
				}
			}
		});

		test("a variant whose source has gone on is marked in the catalogue", async () => {
			await setKnownHead(database.handle, "demo/model-3", "e".repeat(40), new Date(NOW.getTime() + 1000));
			const response = await fetch(`${site.url}/variants?q=model-3`, { headers: { Accept: "application/json" } });
			const { variants } = (await response.json()) as {
				variants: { source: { repo: string }; ofOlderCommit: boolean }[];
			};
			assert.deepEqual(
				variants.filter((variant) => variant.ofOlderCommit).map((variant) => variant.source.repo),
				["demo/model-3"],
			);
			assert.match(await (await fetch(`${site.url}/variants?q=model-3`)).text(), /of an older commit/);
		});

		test("search takes its characters as they are, filters narrow, the page links onwards", async () => {
			const count = async (query: string): Promise<number> => {
				const response = await fetch(`${site.url}/variants?${query}`, { headers: { Accept: "application/json" } });
				return ((await response.json()) as { variants: unknown[] }).variants.length;
			};
			assert.equal(await count("q=model-29"), 1);
			assert.equal(await count("q=%25"), 0);
			assert.equal(await count("q=model_29"), 0);
			assert.equal(await count(`q=${encodeURIComponent("'; drop table variants; --")}`), 0);
			assert.equal(await count("container=onnx"), 0);
			assert.equal(await count("container=gguf&bits=4"), 25);
			const page = await (await fetch(`${site.url}/variants?bits=4`)).text();
			assert.match(page, /<a rel="next" href="\/variants\?bits=4&amp;cursor=/);
		});

		test("answers are as /openapi.json describes them", async () => {
			const api = await readApiDescription(site.url);
			await api.check("/", "/");
			await api.check("/variants", "/variants?q=model-3");
			await api.check("/m/{owner}/{name}", "/m/demo/model-0");
			const { jobs } = (await api.check("/jobs", "/jobs")) as { jobs: { id: string }[] };
			await api.check("/jobs/{id}", `/jobs/${jobs[0]?.id}`);
			await api.check("/deliveries", "/deliveries");
		});

		test("a job in line names the one in front, unless that one is private", async () => {
			const { handle } = database;
			const named = ["line/one", "line/two", "secret/three", "line/four"];
			const ids: string[] = [];
			for (const [index, sourceRepo] of named.entries()) {
				const [id, now] = [randomUUID(), new Date(NOW.getTime() - 100_000 + index * 1000)];
				const common = {
					sourceSha: SHA,
					state: "planned",
					statusText: "Planned.",
					refusal: null,
					facts: null,
				} as const;
				await insertJob(handle, { id, sourceRepo, ...common, now });
				await setJobEstimate(handle, { id, text: "A plan.", microUsd: null, seconds: 90.5, flavor: null });
				await handle
					.updateTable("jobs")
					.set(index === 0 ? { state: "running", started_at: now } : { state: "waiting", held_until: null })
					.where("id", "=", id)
					.execute();
				ids.push(id);
			}
			await handle.updateTable("jobs").set({ state: "done" }).where("id", "not in", ids).execute();
			await setSourceVisibility(handle, { repo: "secret/three", private: true, gated: "no", now: NOW });
			// The namespace that runs something already comes after the one that does not.
			const [one, two, three, four] = ids;
			const seen = async (id: string | undefined) => {
				const response = await fetch(`${site.url}/jobs/${id}`, { headers: { Accept: "application/json" } });
				const { place, job } = (await response.json()) as { place: unknown; job: { plannedSeconds: number } };
				assert.equal(job.plannedSeconds, 90.5);
				return place;
			};
			assert.equal(await seen(one), null, "what runs is not in line");
			assert.deepEqual(await seen(two), { ahead: 1, front: null });
			assert.deepEqual(await seen(four), {
				ahead: 2,
				front: { id: two, sourceRepo: "line/two", isRunning: false },
			});
			assert.deepEqual(await queuePlace(handle, three ?? "", NOW, "operator"), {
				ahead: 0,
				front: { id: one, sourceRepo: "line/one", isRunning: true },
			});
			await handle.deleteFrom("job_events").where("job_id", "in", ids).execute();
			await handle.deleteFrom("jobs").where("id", "in", ids).execute();
		});

		test("ten senders of one delivery leave one row", async () => {
			const send = (): Promise<Response> =>
				fetch(`${site.url}/webhooks/hub`, {
					method: "POST",
					headers: { "Content-Type": "application/json", "X-Webhook-Secret": SECRET, "Webhook-Id": "the-same" },
					body: JSON.stringify({
						event: { action: "update", scope: "repo.content" },
						repo: { type: "model", name: "demo/model-0" },
					}),
				});
			const statuses = (await Promise.all(Array.from({ length: 10 }, send))).map((response) => response.status);
			assert.equal(statuses.filter((status) => status === 202).length, 1);
			assert.equal(statuses.filter((status) => status === 200).length, 9);
		});

		test("a delivery that failed is worked on again when it is sent again, one that succeeded is not", async () => {
			const owner = "test";
			for (const [outcome, revived] of [
				["failed", true],
				["accepted", false],
			] as const) {
				const { id } = await insertDelivery(database.handle, {
					id: randomUUID(),
					source: "hub",
					dedupeKey: outcome,
					receivedAt: NOW,
					body: {},
				});
				const until = new Date(NOW.getTime() + 1000);
				assert.ok((await leaseDelivery(database.handle, { id, owner, now: NOW, until })) !== null);
				await settleDelivery(database.handle, { id, owner, outcome, detail: "x", nextAttemptAt: NOW });

				assert.equal(await reviveDelivery(database.handle, { id, after: ["failed"], now: NOW }), revived);

				const again = await leaseDelivery(database.handle, { id, owner, now: NOW, until });
				assert.equal(again !== null, revived);
			}
		});

		test("metrics count what the tables hold", async () => {
			const text = await (await fetch(`${site.url}/metrics`)).text();
			assert.match(text, new RegExp(`yaqa_bot_variants\\{state="published"\\} ${VARIANTS}`));
			assert.match(text, /yaqa_bot_deliveries\{outcome="accepted"\} 1/);
		});
	});
});
