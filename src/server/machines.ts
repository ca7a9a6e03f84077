import { execFile } from "node:child_process";
import { availableParallelism, cpus, totalmem } from "node:os";
import { promisify } from "node:util";
import type { Configuration } from "../config/schema.ts";
import type { Handle } from "../db/database.ts";
import { listMeasured } from "../db/variants.ts";
import type { HubAccess } from "../hub/hub-access.ts";
import { type JobHardware, listJobHardware } from "../hub/list-job-hardware.ts";
import type { Hardware } from "../jobs/estimate/hardware.ts";
import { type MeasuredRate, ratesOf } from "../jobs/estimate/measured-rates.ts";
import { parseByteSize } from "../protocol/byte-size.ts";

const run = promisify(execFile);
const GIB = 1024 ** 3;
const MIB = 1024 ** 2;

type Gpu = { readonly model: string; readonly bytes: number };

/** One line a GPU: `NVIDIA H200, 143771` (name, MiB), as `nvidia-smi --query-gpu=name,memory.total` prints them. */
export function parseGpuList(text: string): readonly Gpu[] {
	return text.split("\n").flatMap((line) => {
		const [, model, mebibytes] = /^(.+), *(\d+)\s*$/.exec(line.trim()) ?? [];
		return model === undefined ? [] : [{ model, bytes: Number(mebibytes) * MIB }];
	});
}

export async function ownGpus(): Promise<readonly Gpu[]> {
	try {
		const query = ["--query-gpu=name,memory.total", "--format=csv,noheader,nounits"];
		return parseGpuList((await run("nvidia-smi", query, { timeout: 10_000 })).stdout);
	} catch {
		// No driver, no GPU.
		return [];
	}
}

/** This machine, as one run has it: its share of the GPUs if there are any, else the processor. */
async function ownMachine(configuration: Configuration): Promise<readonly Hardware[]> {
	const { device, memoryBytes, threads, gpus, gpusPerRun } = configuration.runner;
	const [gpu] = device === "cpu" ? [] : await ownGpus();
	if (gpu === undefined && device === "cuda") return [];
	return [
		{
			runner: "local",
			flavor: "local",
			title: gpu?.model ?? cpus()[0]?.model ?? "CPU",
			cores: threads ?? availableParallelism(),
			memoryBytes: Math.min(totalmem(), memoryBytes ?? Number.POSITIVE_INFINITY),
			accelerator:
				gpu === undefined ? null : { model: gpu.model, count: gpus === null ? 1 : gpusPerRun, bytesEach: gpu.bytes },
			microUsdPerMinute: 0,
		},
	];
}

function leadingNumber(text: string): number {
	return Number.parseFloat(text) || 0;
}

/** The Hub's list in the estimate's terms. Rows that are not paid by the minute are left out. */
export function hardwareOfHub(rows: readonly JobHardware[]): readonly Hardware[] {
	return rows.flatMap((row) => {
		if (row.unitLabel !== "minute") return [];
		const diskBytes = parseByteSize((row.ephemeralStorage ?? "").replaceAll(" ", ""));
		const count = row.accelerator == null ? 0 : Math.max(1, leadingNumber(row.accelerator.quantity));
		return [
			{
				runner: "hf-jobs",
				flavor: row.name,
				title: row.prettyName,
				cores: Math.max(1, leadingNumber(row.cpu)),
				memoryBytes: leadingNumber(row.ram) * GIB,
				accelerator:
					row.accelerator == null
						? null
						: {
								model: row.accelerator.model,
								count,
								// The list gives the memory of all of them together.
								bytesEach: (leadingNumber(row.accelerator.vram) * GIB) / count,
							},
				...(diskBytes === null ? {} : { diskBytes }),
				microUsdPerMinute: row.unitCostMicroUSD,
			},
		];
	});
}

/** Every machine that the Hub offers. */
export async function hubMachines(hub: HubAccess): Promise<readonly Hardware[]> {
	return hardwareOfHub(await listJobHardware(hub));
}

/** What jobs run on as configured; `null` for machines that nobody can tell from here. */
export async function configuredMachines(
	configuration: Configuration,
	hub: HubAccess,
): Promise<readonly Hardware[] | null> {
	switch (configuration.runner.kind) {
		case "local":
			return await ownMachine(configuration);
		case "hf-jobs": {
			const { flavor } = configuration.runner.hfJobs;
			const all = await hubMachines(hub);
			return flavor === "auto" ? all : all.filter((machine) => machine.flavor === flavor);
		}
		case "github-actions": {
			const { machine } = configuration.runner.githubActions;
			if (machine === null) return null;
			return [
				{
					runner: "github-actions",
					flavor: "self-hosted",
					title: machine.gpus === 1 ? machine.gpu : `${machine.gpus} × ${machine.gpu}`,
					cores: machine.cores,
					memoryBytes: machine.memoryGiB * GIB,
					accelerator: { model: machine.gpu, count: machine.gpus, bytesEach: machine.gpuMemoryGiB * GIB },
					microUsdPerMinute: Math.round((machine.usdPerHour / 60) * 1e6),
				},
			];
		}
	}
}

const LEARN_FROM = 12;

/** How fast the newest finished jobs were. */
export async function measuredRates(handle: Handle): Promise<readonly MeasuredRate[]> {
	return (await listMeasured(handle, LEARN_FROM)).flatMap(({ manifest, parameters, variants }) =>
		ratesOf(manifest, { parameters, variants }),
	);
}
