import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fileOrigins, isAllowedUrl } from "../../src/hub/allowed-url.ts";
import { makeVariant, memoryData, startSite, type TestSite } from "../support/web-fixtures.ts";

const small = makeVariant({ recipe: "onnx:q4", bytes: 1e6 });
const large = makeVariant({ recipe: "onnx:q8", bytes: 1e6 });
const other = makeVariant({ recipe: "gguf:q4_0" });
const wanted = makeVariant({ recipe: "onnx:q4", sourceRepo: "demo/wanted", state: "wanted" });
small.manifest?.files.push({ path: "onnx/model_q4.onnx", size: 7e6, sha256: "a".repeat(64) });
large.manifest?.files.push(
	{ path: "onnx/model_quantized.onnx", size: 1e6, sha256: "a".repeat(64) },
	{ path: "onnx/model_quantized.onnx_data", size: 2e9, sha256: "a".repeat(64) },
);

let site: TestSite;
before(async () => {
	site = await startSite(memoryData({ variants: [small, large, other, wanted] }));
});
after(() => site.close());

test("what a browser can run is tried there, and nothing else is offered", async () => {
	const answer = await fetch(`${site.url}/v/${small.id}/try`);
	assert.equal(answer.status, 200);
	assert.match(await answer.text(), /onnx\/model_q4\.onnx/);
	assert.match(await (await fetch(`${site.url}/v/${small.id}`, { headers: { accept: "text/html" } })).text(), /\/try"/);
	for (const variant of [large, other, wanted]) {
		assert.equal((await fetch(`${site.url}/v/${variant.id}/try`)).status, 404, variant.recipe);
		const page = await fetch(`${site.url}/v/${variant.id}`, { headers: { accept: "text/html" } });
		assert.doesNotMatch(await page.text(), /\/try"/, variant.recipe);
	}
	assert.equal((await fetch(`${site.url}/v/nothing/try`)).status, 404);
});

test("what runs a model comes from here alone, and it alone may compile and ask the Hub", async () => {
	const html = await (await fetch(`${site.url}/v/${small.id}/try`)).text();
	const worker = /data-worker="([^"]+)"/.exec(html)?.[1]?.replaceAll("&amp;", "&") ?? "";
	const answer = await fetch(`${site.url}${worker}`);
	assert.equal(answer.status, 200);
	const policy = answer.headers.get("content-security-policy") ?? "";
	assert.equal(
		policy,
		"default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self' http://hub.example https://hub.example https://*.hub.example",
	);
	const modules = [...new URL(worker, site.url).searchParams.values()];
	assert.equal(modules.length, 3);
	for (const path of [...modules, modules[0]?.replace(/[^/]+$/, "ort-wasm-simd-threaded.wasm") ?? ""]) {
		const module = await fetch(`${site.url}${path}`);
		assert.equal(module.status, 200, path);
		assert.match(module.headers.get("content-type") ?? "", /javascript|wasm/);
		assert.match(module.headers.get("cache-control") ?? "", /immutable/);
		await module.body?.cancel();
	}
	const page = (await fetch(`${site.url}/v/${small.id}/try`)).headers.get("content-security-policy") ?? "";
	assert.doesNotMatch(page, /wasm|connect-src/);
});

test("a browser is let to the Hub's own hosts, as the bot is", () => {
	assert.deepEqual(fileOrigins("http://127.0.0.1:8080"), ["http://127.0.0.1:8080"]);
	assert.deepEqual(fileOrigins("https://hub.example", ["files.example"]), [
		"https://hub.example",
		"https://*.hub.example",
		"https://files.example",
	]);
	for (const hub of ["https://huggingface.co", "https://hub.example"]) {
		for (const origin of fileOrigins(hub, ["files.example"])) {
			assert.ok(isAllowedUrl(new URL(origin.replace("*", "cdn")), hub, ["files.example"]), origin);
		}
	}
});
