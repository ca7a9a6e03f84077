import assert from "node:assert/strict";
import { test } from "node:test";
import { ConfigurationFile } from "../../src/config/schema.ts";
import { configuredMachines, hardwareOfHub, measuredRates, parseGpuList } from "../../src/server/machines.ts";
import { onEveryDatabase } from "../support/databases.ts";

test("GPUs are read from nvidia-smi's list, other lines left out", () => {
	assert.deepEqual(parseGpuList("NVIDIA H200, 143771\nNVIDIA L4, 23034\n\nNo devices were found\n"), [
		{ model: "NVIDIA H200", bytes: 143_771 * 1024 ** 2 },
		{ model: "NVIDIA L4", bytes: 23_034 * 1024 ** 2 },
	]);
});

test("the Hub's list gives memory of one GPU and prices a minute", () => {
	const row = { name: "l4x4", prettyName: "4x Nvidia L4", cpu: "48 vCPU", ram: "186 GB", unitCostMicroUSD: 63_333 };
	const accelerator = { model: "L4", quantity: "4", vram: "96 GB" };
	const [four, none] = hardwareOfHub([
		{ ...row, accelerator, unitLabel: "minute" },
		{ ...row, accelerator: null, unitLabel: "minute" },
		{ ...row, accelerator, unitLabel: "year" },
	]);
	assert.deepEqual(four?.accelerator, { model: "L4", count: 4, bytesEach: 24 * 1024 ** 3 });
	assert.equal(four?.cores, 48);
	assert.equal(none?.accelerator, null);
});

test("machines of a GitHub repo are what the configuration says, or not known", async () => {
	const of = (machine: object | null) =>
		configuredMachines(ConfigurationFile.parse({ runner: { kind: "github-actions", githubActions: { machine } } }), {
			hubUrl: "http://127.0.0.1:9",
		});
	assert.equal(await of(null), null);
	const [machine] =
		(await of({ gpu: "NVIDIA L40S", gpus: 2, gpuMemoryGiB: 48, memoryGiB: 128, usdPerHour: 1.2 })) ?? [];
	assert.deepEqual(machine?.accelerator, { model: "NVIDIA L40S", count: 2, bytesEach: 48 * 1024 ** 3 });
	assert.equal(machine?.microUsdPerMinute, 20_000);
	assert.equal(machine?.title, "2 × NVIDIA L40S");
});

await onEveryDatabase((databases, name) => {
	test(`a database without finished jobs teaches nothing, on ${name}`, async () => {
		const database = await (await databases()).open();
		assert.deepEqual(await measuredRates(database.handle), []);
		await database.close();
	});
});
