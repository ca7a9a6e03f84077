import assert from "node:assert/strict";
import { test } from "node:test";
import { byteSizeText, parseByteSize } from "../../src/protocol/byte-size.ts";
import { parseRecipe } from "../../src/protocol/recipe.ts";

test("a size has one spelling, and nothing is lost in it", () => {
	for (const [written, size, text] of [
		["4.5GB", 4_500_000_000, "4.5GB"],
		["4500mb", 4_500_000_000, "4.5GB"],
		["4.5GiB", 4_831_838_208, "4.5GiB"],
		["0.5gb", 500_000_000, "500MB"],
		["1KiB", 1024, "1.024kB"],
		["1536MiB", 1_610_612_736, "1.5GiB"],
		["999", 999, "999"],
		["100TB", 1e14, "100TB"],
		["10kb", 10_000, "10kB"],
	] as const) {
		assert.equal(parseByteSize(written), size, written);
		assert.equal(byteSizeText(size), text);
	}
	for (const factor of [1, 7, 1024, 1e3, 2 ** 20, 1e6, 1e8]) {
		for (let count = 1; count < 1e6; count += 4099) {
			assert.equal(parseByteSize(byteSizeText(count * factor)), count * factor);
		}
	}
	for (const written of ["", "GB", "4,5GB", "4.5", "4.5G", "-1GB", "1.2345GB", "1e9", "0", "0.0kB", "4 GB", "101TB"]) {
		assert.equal(parseByteSize(written), null, written);
	}
});

test("a budget of bytes is a recipe of its own", () => {
	const parsed = parseRecipe("gguf,tune=off,bytes=4500MB");
	assert.ok(parsed.ok);
	assert.equal(parsed.recipe.canonical, "gguf,bytes=4.5gb,tune=off");
	assert.equal(parsed.recipe.budgetBytes, 4.5e9);
	assert.equal(parsed.recipe.bitsPerWeight, null);
});
