import assert from "node:assert/strict";
import { test } from "node:test";
import { ConfigurationFile, type ConfigurationInput } from "../../src/config/schema.ts";
import { holdOf, lineText, monthStart } from "../../src/jobs/admission.ts";
import { estimateJob } from "../../src/jobs/estimate/estimate-job.ts";
import { createEstimator, refusalOfEstimate } from "../../src/jobs/estimate/estimator.ts";
import type { Hardware } from "../../src/jobs/estimate/hardware.ts";
import { memoryOf } from "../../src/jobs/estimate/memory.ts";
import { type JobWorkload, workOf } from "../../src/jobs/estimate/workload.ts";
import { formatUsd } from "../../src/publish/figures.ts";

const GIB = 1024 ** 3;

function gpu(flavor: string, model: string, count: number, gigabytes: number, dollarsPerHour: number): Hardware {
	return {
		runner: "hf-jobs",
		flavor,
		title: `${count} × ${model}`,
		cores: 8 * count,
		memoryBytes: 64 * count * GIB,
		accelerator: { model, count, bytesEach: gigabytes * GIB },
		microUsdPerMinute: (dollarsPerHour / 60) * 1e6,
	};
}

const T4 = gpu("t4-small", "T4", 1, 16, 0.4);
const L4 = gpu("l4x1", "L4", 1, 24, 0.8);
const L40S = gpu("l40sx1", "L40S", 1, 48, 1.8);
const FOUR_L40S = gpu("l40sx4", "L40S", 4, 48, 8.3);
const ALL = [FOUR_L40S, L40S, T4, L4];

function workload(billions: number, more: Partial<JobWorkload> = {}): JobWorkload {
	const parameters = billions * 1e9;
	return {
		facts: { repo: "acme/model", parameters, weightBytes: 2 * parameters, vocabulary: 32_000 },
		variants: 3,
		calibrationTokens: 128 * 256,
		evaluationTokens: 2 * 32 * 256,
		iterations: 6,
		tuningPasses: 0,
		sketchReused: false,
		...more,
	};
}

test("the cheapest machine that holds the job is chosen, and said why", () => {
	const small = estimateJob(workload(0.5), ALL);
	const eight = estimateJob(workload(7), ALL);
	assert.ok(small.choice !== null && eight.choice !== null);
	const fitting = eight.estimates.filter((one) => one.fits);
	assert.equal(eight.choice.microUsd, Math.min(...fitting.map((one) => one.microUsd)));
	assert.equal(eight.estimates.find((one) => one.hardware === T4)?.fits, false);
	assert.match(
		eight.text,
		/\(hf-jobs\): .*the cheapest that fits\. Takes .* GiB of memory and about .*, for (\$|less than \$)/,
	);
	assert.match(eight.text, /estimated before any job was measured there/);
});

test("several GPUs are taken only where a single one would take too long: they share the sketch, not the memory", () => {
	const of = (plan: ReturnType<typeof estimateJob>, hardware: Hardware) => {
		const found = plan.estimates.find((one) => one.hardware === hardware);
		assert.ok(found !== undefined);
		return found;
	};
	const unhurried = estimateJob(workload(7), ALL);
	assert.notEqual(unhurried.choice?.hardware, FOUR_L40S);
	const [one, four] = [of(unhurried, L40S), of(unhurried, FOUR_L40S)];
	assert.ok(four.minutes < one.minutes && four.minutes > one.minutes / 4);
	const hurried = estimateJob(workload(7), ALL, [], (one.minutes + four.minutes) / 2);
	assert.equal(hurried.choice?.hardware, FOUR_L40S);
	assert.match(hurried.text, /fewer accelerators would take too long, so that 4 share the sketch/);
	// No machine is fast enough: the fastest is tried.
	assert.equal(estimateJob(workload(7), ALL, [], 1).choice?.hardware, FOUR_L40S);
	// What one does not hold, four do not hold either.
	assert.equal(estimateJob(workload(30), ALL).choice, null);
	assert.equal(of(estimateJob(workload(30), ALL), FOUR_L40S).availableBytes, 48 * GIB);
});

test("what fits nowhere, and no machine at all, is refused with who can help", () => {
	const huge = estimateJob(workload(400), ALL);
	assert.equal(huge.choice, null);
	assert.equal(huge.refusal?.code, "too-large");
	assert.match(huge.text, /the largest accelerator, of (4|1) × L40S of hf-jobs, has .* Whoever runs the bot/);
	assert.match(estimateJob(workload(1), []).text, /no machine/);
});

test("an estimate that is too large stops a job on rented machines only", () => {
	const budget = { perJobUsd: null, perMonthUsd: null, approvalUsd: null, runsPerNamespacePerDay: null };
	const own: Hardware = { ...T4, runner: "local", microUsdPerMinute: 0 };

	assert.equal(refusalOfEstimate(estimateJob(workload(400), ALL), budget)?.code, "too-large");
	assert.equal(refusalOfEstimate(estimateJob(workload(400), [own]), budget), null);
});

test("a stored sketch saves its stage, more variants cost more, larger models too", () => {
	const [fresh, reused] = [workOf(workload(1)), workOf(workload(1, { sketchReused: true }))];
	assert.equal(reused.sketch, 0);
	assert.deepEqual({ ...fresh, sketch: 0 }, reused);
	assert.ok(workOf(workload(1, { variants: 4 })).round > fresh.round);
	assert.ok(memoryOf(workload(8), "cuda") > memoryOf(workload(1), "cuda"));
	assert.ok(memoryOf(workload(1), "cpu") > 4e9, "the CPU holds float32");
});

test("finished jobs correct the time, on their own kind of device only", () => {
	const work = workOf(workload(7));
	const rates = (["sketch", "round", "evaluate"] as const).map((stage) => ({
		device: "NVIDIA L4",
		stage,
		secondsPerOperation: 3600 / work[stage],
	}));
	const of = (hardware: Hardware, learned: boolean) =>
		estimateJob(workload(7), [hardware], learned ? rates : []).estimates[0];
	assert.ok(Math.abs((of(L4, true)?.minutes ?? 0) - 180) < 5);
	assert.equal(of(L4, true)?.isLearned, true);
	assert.equal(of(L40S, true)?.isLearned, false, "an L40S is no L4");
	assert.equal(of(L40S, true)?.minutes, of(L40S, false)?.minutes);
});

const BUDGET = { perJobUsd: null, perMonthUsd: null, approvalUsd: null, runsPerNamespacePerDay: null };
const STATE = {
	estimateMicroUsd: 2e6,
	approved: false,
	spentMicroUsd: 9e6,
	namespace: "acme",
	namespaceRuns: 3,
	oldestRunAt: new Date("2026-03-14T08:00:00Z"),
};
const NOW = new Date("2026-03-14T10:00:00Z");

test("each ceiling holds a job with a sentence that says until when and who can change it", () => {
	assert.equal(holdOf("j", STATE, BUDGET, NOW), null);
	const month = holdOf("j", STATE, { ...BUDGET, perMonthUsd: 10 }, NOW);
	assert.match(month?.statusText ?? "", /took \$9.00 of \$10.00.*2026-04-01.*budget\.perMonthUsd/);
	assert.equal(month?.until.toISOString(), "2026-04-01T00:00:00.000Z");
	assert.equal(holdOf("j", STATE, { ...BUDGET, perMonthUsd: 11 }, NOW), null);
	assert.equal(
		holdOf("j", { ...STATE, estimateMicroUsd: 0 }, { ...BUDGET, perMonthUsd: 1 }, NOW),
		null,
		"what costs nothing never waits for money",
	);
	const approval = holdOf("j", STATE, { ...BUDGET, approvalUsd: 1 }, NOW);
	assert.match(approval?.statusText ?? "", /may cost \$2.00.*yaqa-bot approve j/);
	assert.equal(holdOf("j", { ...STATE, approved: true }, { ...BUDGET, approvalUsd: 1 }, NOW), null);
	const quota = holdOf("j", STATE, { ...BUDGET, runsPerNamespacePerDay: 3 }, NOW);
	assert.match(quota?.statusText ?? "", /acme had 3 runs.*2026-03-15 08:00 UTC/);
	assert.equal(monthStart(NOW).toISOString(), "2026-03-01T00:00:00.000Z");
});

test("a job in line is told how many are ahead", () => {
	assert.match(lineText(0), /it is next/);
	assert.match(lineText(1), /one job is ahead/);
	assert.match(lineText(7), /7 jobs are ahead/);
	assert.equal(formatUsd(0), "nothing");
});

test("no machine at all, and hardware that is not on the list, name the setting and who sets it", () => {
	const facts = {
		...workload(1).facts,
		sha: "a".repeat(40),
		architecture: "LlamaForCausalLM",
		license: null,
		gated: false,
		private: false,
		tags: [],
	};
	const refusalFor = (runner: ConfigurationInput["runner"]) => {
		const configuration = ConfigurationFile.parse({ runner });
		const plan = createEstimator(configuration, [], [])({ facts, variants: 1, sketchReused: false });
		return refusalOfEstimate(plan, configuration.budget);
	};
	const noGpu = refusalFor({ device: "cuda" });
	assert.match(noGpu?.message ?? "", /no GPU that can be seen/);
	assert.match(noGpu?.remedy ?? "", /Whoever runs the bot .*runner\.device to auto/);
	const noFlavor = refusalFor({ kind: "hf-jobs", hfJobs: { flavor: "abacus" } });
	assert.match(noFlavor?.message ?? "", /no hardware called abacus/);
	assert.match(noFlavor?.remedy ?? "", /Whoever runs the bot sets runner\.hfJobs\.flavor/);
});
