import type { LayerEvidence } from "../../src/protocol/manifest.ts";
import type { WebData } from "../../src/web/data.ts";
import { EIGHT_BILLION, makeEvents, makeJob, makeVariant, memoryData, NOW, uuid } from "./web-fixtures.ts";

const REPO = "lab/Example-8B-Instruct";
const OLDER = "0".repeat(40);

function layers(count: number): LayerEvidence[] {
	return Array.from({ length: count }, (_, index) => ({
		name: `model.layers.${Math.floor(index / 7)}.self_attn.q_proj`,
		shape: [4096, 4096],
		type: "q4_k",
		proxyError: { twoSided: 0.3 + 0.2 * Math.sin(index), oneSided: 0.6, rtn: 1 },
		effectiveRankOutput: 210 + index,
		effectiveRankInput: 80 + index,
		cosineSimilarity: null,
		sigmaInput: 0.02,
		sigmaOutput: 0.02,
	}));
}

/** A site with something on every page: files of every engine, jobs in every state that looks different, long names. */
export function siteContent(): { readonly data: WebData; readonly pages: Readonly<Record<string, string>> } {
	const common = { sourceRepo: REPO, shape: EIGHT_BILLION };
	const running = makeJob({ sourceRepo: REPO, plannedSeconds: 900, planText: "On this machine, about 15 minutes." });
	const queued = makeJob({ sourceRepo: REPO, state: "waiting", startedAt: null });
	const done = makeJob({ sourceRepo: REPO, state: "done", finishedAt: NOW });
	const failed = makeJob({
		sourceRepo: "somebody/broken",
		state: "failed",
		finishedAt: NOW,
		refusal: {
			code: "pickle-only",
			message: "The repo holds pickle files only, which are never opened.",
			remedy: "Save the weights as safetensors and push again.",
		},
	});
	const cancelled = makeJob({
		state: "cancelled",
		finishedAt: NOW,
		statusText: "The job was cancelled.",
		refusal: { code: "cancelled", message: "The job was cancelled.", remedy: "Retry it when it is wanted again." },
	});
	const variants = [
		makeVariant({ ...common, recipe: "gguf:q8_0", kl: 0.0004, bytes: 8.54e9, jobId: done.id }),
		makeVariant({ ...common, recipe: "gguf:q6_k", kl: 0.0021, bytes: 6.6e9, jobId: done.id }),
		makeVariant({ ...common, recipe: "gguf:q4_k_m", kl: 0.019, bytes: 4.92e9, jobId: done.id }),
		makeVariant({ ...common, recipe: "gguf:q4_0", kl: 0.034, bytes: 4.66e9, jobId: done.id }),
		makeVariant({ ...common, recipe: "gguf:q3_k_m", kl: 0.071, bytes: 4.02e9, jobId: done.id }),
		makeVariant({ ...common, recipe: "gguf:q2_k", kl: 0.31, bytes: 3.18e9, sourceSha: OLDER, jobId: done.id }),
		makeVariant({ ...common, recipe: "onnx:q4", kl: 0.025, bytes: 5.2e9, jobId: done.id }),
		makeVariant({ ...common, recipe: "w4a16", kl: 0.029, bytes: 5.4e9, jobId: done.id }),
		makeVariant({ ...common, recipe: "gptq:4", kl: 0.03, bytes: 5.5e9, jobId: done.id }),
		makeVariant({ ...common, recipe: "gguf:q5_k_m", state: "wanted", jobId: running.id }),
		makeVariant({
			sourceRepo: "an-organisation-with-a-long-name/a-model-whose-name-takes-more-than-one-line-on-a-phone-0.6B",
			recipe: "gguf:iq4_xs,embedding=q8_0",
		}),
	];
	const tried = makeVariant({ sourceRepo: "lab/Small", recipe: "onnx:q4", bytes: 2e6, jobId: done.id });
	tried.manifest?.files.push({ path: "onnx/model_q4.onnx", size: 7.5e6, sha256: "a".repeat(64) });
	variants.push(tried);
	const [, , shown] = variants;
	// One with everything that its page can show.
	if (shown?.manifest != null) {
		shown.manifest.layers.push(...layers(56));
		shown.manifest.engine = {
			name: "llama.cpp",
			version: "b7120",
			klNats: { mean: 0.0193, standardError: 0.0008 },
			topOneAgreement: 0.962,
			positions: 4096,
			tokens: { texts: 240, equal: 240, different: [] },
			greedy: { tokens: 64, equal: 61 },
		};
		for (const row of shown.manifest.evaluation.measured) {
			row.byDomain["prose"] = row.report;
			row.byDomain["code"] = row.report;
		}
		Object.assign(shown.manifest.versions, { torch: "2.13.0", transformers: "5.1.0" });
		Object.assign(shown.manifest.seeds, { calibration: 0 });
	}
	const data = memoryData({
		variants,
		jobs: [running, queued, done, failed, cancelled],
		events: [running, done].flatMap((job) => makeEvents(job.id)),
		places: { [queued.id]: { ahead: 1, front: { id: running.id, sourceRepo: REPO, isRunning: true } } },
		deliveries: (["accepted", "ignored", "failed", "pending"] as const).map((outcome) => ({
			id: uuid(),
			source: "hub",
			dedupeKey: outcome,
			receivedAt: NOW,
			outcome,
			detail: outcome === "failed" ? "The Hub did not answer." : null,
			body: { event: { action: "update", scope: "repo.content" }, repo: { type: "model", name: REPO } },
		})),
	});
	return {
		data,
		pages: {
			models: "/",
			"models-none": "/?q=nothing&bits=4&size=4GB",
			variants: "/variants",
			model: `/m/${REPO}`,
			"model-fits": `/m/${REPO}?fits=8+GB&context=8k&container=gguf`,
			"model-fits-not": `/m/${REPO}?fits=1+GB&context=8k`,
			jobs: "/jobs",
			"job-running": `/jobs/${running.id}`,
			"job-queued": `/jobs/${queued.id}`,
			"job-done": `/jobs/${done.id}`,
			"job-failed": `/jobs/${failed.id}`,
			"job-cancelled": `/jobs/${cancelled.id}`,
			"job-log": `/jobs/${running.id}/log?layers=1`,
			"job-log-none": `/jobs/${running.id}/log?q=nothing`,
			variant: `/v/${variants[2]?.id}`,
			"variant-wanted": `/v/${variants[9]?.id}`,
			try: `/v/${tried.id}/try`,
			"models-fits": "/?fits=8+GB",
			deliveries: "/deliveries",
			help: "/help",
			about: "/about",
			missing: "/no-such-page",
		},
	};
}
