import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const text = (name: string) => readFileSync(new URL(`../../gpu-runner/${name}`, import.meta.url), "utf8");
const normal = (name: string) => name.toLowerCase().replaceAll(/[-_.]+/g, "-");

/** Each package of the lock with its version and how many hashes it has. */
function locked(): ReadonlyMap<string, { readonly version: string; readonly hashes: number }> {
	const entries = text("requirements.lock").matchAll(
		/^([\w.-]+)==(\S+)[^\n]*((?:\n {4}--hash=sha256:[0-9a-f]{64}[^\n]*)*)/gm,
	);
	return new Map(
		[...entries].map(([, name = "", version = "", hashes = ""]) => [
			normal(name),
			{ version, hashes: hashes.split("--hash").length - 1 },
		]),
	);
}

test("every Python package is installed by hash, but for PyTorch, whose builds differ by machine", () => {
	const packages = locked();
	assert.ok(packages.size > 70, `${packages.size} packages`);
	for (const [name, { hashes }] of packages) assert.ok(hashes > 0, name);
	const asked = [...text("requirements.txt").matchAll(/^([\w.-]+)==(\S+)$/gm)];
	assert.ok(asked.length > 15);
	for (const [, name = "", version = ""] of asked) {
		assert.equal(packages.get(normal(name))?.version, name === "torch" ? undefined : version, name);
	}
});
