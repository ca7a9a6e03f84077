import { open } from "node:fs/promises";
import type { Configuration } from "../config/schema.ts";
import { downloadRepoFile } from "../hub/download-repo-file.ts";
import type { HubAccess } from "../hub/hub-access.ts";
import { blocksOfConfig, type ConfiguredModel } from "../jobs/estimate/blocks-of-config.ts";
import type { Hardware } from "../jobs/estimate/hardware.ts";
import {
	type MachineStages,
	planStages,
	RATE_ASSUMPTIONS,
	type StagePlan,
	type StageSettings,
	sized,
} from "../jobs/estimate/plan-stages.ts";
import { recipesOfRules } from "../jobs/watch-rules.ts";
import { parseJson } from "../parse-json.ts";
import { parseByteSize } from "../protocol/byte-size.ts";
import { formatUsd } from "../publish/figures.ts";
import { EXIT_CODES, type ExitCode } from "./exit-codes.ts";
import { printable, type Terminal, table, wrapped } from "./terminal.ts";

type ConfigDocument =
	| { readonly ok: true; readonly document: unknown }
	| { readonly ok: false; readonly message: string };

const MOST_CONFIG_BYTES = 4_000_000;

export async function readConfigFile(path: string): Promise<ConfigDocument> {
	try {
		const handle = await open(path);
		try {
			if ((await handle.stat()).size > MOST_CONFIG_BYTES) {
				return { ok: false, message: `${path} is too large for a config.json.` };
			}
			return documentOf(await handle.readFile(), path);
		} finally {
			await handle.close();
		}
	} catch (error) {
		return {
			ok: false,
			message: `${path} cannot be read: ${error instanceof Error ? error.message : "unknown reason"}`,
		};
	}
}

export async function readConfigOfRepo(hub: HubAccess, repo: string, revision: string): Promise<ConfigDocument> {
	try {
		return documentOf(await downloadRepoFile(hub, repo, revision, "config.json"), `config.json of ${repo}`);
	} catch (error) {
		const reason = error instanceof Error ? error.message : "unknown reason";
		return { ok: false, message: `config.json of ${repo} cannot be read: ${reason}` };
	}
}

function documentOf(bytes: Uint8Array, name: string): ConfigDocument {
	const document = bytes.byteLength > MOST_CONFIG_BYTES ? undefined : parseJson(bytes);
	return document === undefined ? { ok: false, message: `${name} is no JSON.` } : { ok: true, document };
}

type ConfigurationPlan = {
	readonly name: string;
	readonly document: unknown;
	readonly variants: number;
	readonly sequences: string | null;
	readonly length: string | null;
	readonly disk: string | null;
	readonly json: boolean;
	readonly configuration: Configuration;
	readonly machines: readonly Hardware[];
};

/** What a model needs of each machine, stage by stage, known by nothing but its configuration. */
export function planConfiguration(options: ConfigurationPlan, terminal: Terminal): ExitCode {
	const refuse = (message: string, code: ExitCode): ExitCode => {
		terminal.err(`${printable(message)}\n`);
		if (options.json) terminal.out(`${JSON.stringify({ ok: false, error: { message } })}\n`);
		return code;
	};
	const settings = settingsOf(options);
	if (settings === null) {
		return refuse("--sequences and --length are whole numbers from 1 to 1000000.", EXIT_CODES.usage.code);
	}
	const disk = options.disk === null ? null : parseByteSize(options.disk);
	if (options.disk !== null && disk === null) {
		return refuse("--disk is a size such as 500GB or 6TB, up to 100 TB.", EXIT_CODES.usage.code);
	}
	const read = blocksOfConfig(options.document);
	if (!read.ok) return refuse(read.message, EXIT_CODES.refused.code);
	const { model } = read;
	const plans = options.machines
		.map((machine) => planStages(model, settings, disk === null ? machine : { ...machine, diskBytes: disk }))
		.toSorted(
			(one, other) => rankOf(one) - rankOf(other) || one.microUsd - other.microUsd || one.seconds - other.seconds,
		);
	const [best] = plans;
	const ok = best !== undefined && rankOf(best) === 0;
	const text = best === undefined ? "There is no machine to plan for." : inWords(best, settings);
	const assumptions = [...model.assumptions, ...RATE_ASSUMPTIONS];
	const people = (line: string) => (options.json ? terminal.err(line) : terminal.out(line));
	people(`${heading(options.name, model, settings)}\n\n${machineTable(plans, settings)}\n\n`);
	if (best !== undefined)
		people(`${printable(best.hardware.title)}, stage by stage:\n\n${stageTable(best.stages)}\n\n`);
	people(`${wrapped("", printable(text))}\n\n${assumptions.map((one) => wrapped("- ", one)).join("\n")}\n`);
	if (options.json) {
		const { architecture, parameters, activeParameters } = model;
		terminal.out(
			`${JSON.stringify({ ok, name: options.name, architecture, parameters, activeParameters, ...settings, text, assumptions, machines: plans.map(wireOf) })}\n`,
		);
	}
	return ok ? EXIT_CODES.ok.code : EXIT_CODES.failed.code;
}

function settingsOf({ configuration, variants, sequences, length, name }: ConfigurationPlan): StageSettings | null {
	const { calibration, evaluation, sketch } = configuration.quantization;
	const wanted = [sequences ?? String(calibration.sequences), length ?? String(calibration.length)].map((text) =>
		/^[1-9]\d{0,5}$|^1000000$/.test(text) ? Number(text) : null,
	);
	const [sequenceCount, tokens] = wanted;
	if (sequenceCount == null || tokens == null) return null;
	const texts = Math.max(1, evaluation.selection.length) + Math.max(1, evaluation.report.length);
	const recipes = recipesOfRules(configuration.watch, name);
	return {
		sequences: sequenceCount,
		length: tokens,
		iterations: sketch.iterations,
		evaluationTokens: texts * evaluation.sequences * evaluation.length,
		variants,
		bitsPerWeight:
			recipes.length === 0 ? 4.5 : recipes.reduce((sum, { name: row }) => sum + row.bitsPerWeight, 0) / recipes.length,
	};
}

/** How many stages, counted from the end, the machine cannot do: the first that it lacks something for ends it. */
function rankOf({ stages }: MachineStages): number {
	const failed = stages.findIndex(({ lacks }) => lacks !== null);
	return failed === -1 ? 0 : stages.length - failed;
}

function heading(name: string, model: ConfiguredModel, settings: StageSettings): string {
	const blocks = model.blocks.reduce((sum, { count }) => sum + count, 0);
	const active =
		model.activeParameters < 0.9 * model.parameters ? `, ${billions(model.activeParameters)} of them active` : "";
	return `${printable(name)}: ${printable(model.architecture)}, ${billions(model.parameters)} parameters${active}, ${blocks} blocks; ${settings.sequences} sequences of ${settings.length} tokens, ${settings.variants} variants`;
}

function billions(count: number): string {
	return `${(count / 1e9).toFixed(1)} billion`;
}

function machineTable(plans: readonly MachineStages[], settings: StageSettings): string {
	const gigabytes = (bytes: number) => (bytes / 1e9).toFixed(0);
	const rows = plans.map((plan) => {
		const most = (of: (stage: StagePlan) => number) => gigabytes(Math.max(...plan.stages.map(of)));
		const { hardware } = plan;
		const failed = plan.stages.find(({ lacks }) => lacks !== null);
		return [
			printable(hardware.title),
			most(({ deviceBytes }) => deviceBytes),
			most(({ hostBytes }) => hostBytes),
			most(({ diskBytes }) => diskBytes),
			gigabytes(plan.stages.reduce((sum, { readBytes }) => sum + readBytes, 0)),
			plan.sequences === settings.sequences ? "" : String(plan.sequences),
			(plan.seconds / 3600).toFixed(1),
			plan.microUsd === 0 ? "none" : formatUsd(plan.microUsd),
			failed === undefined ? "does all" : `${failed.name} takes ${failed.lacks}`,
		];
	});
	const header = ["Machine", "GPU GB", "Host GB", "Disk GB", "Reads GB", "Sequences", "Hours", "Cost", ""];
	return table([header, ...rows], [1, 2, 3, 4, 5, 6, 7]);
}

function stageTable(stages: readonly StagePlan[]): string {
	const rows = stages.map((stage) => [
		stage.name,
		sized(stage.deviceBytes),
		sized(stage.hostBytes),
		sized(stage.diskBytes),
		sized(stage.readBytes),
		sized(stage.writtenBytes),
		(stage.seconds / 60).toFixed(1),
		stage.microUsd === 0 ? "none" : formatUsd(stage.microUsd),
	]);
	const header = ["Stage", "GPU", "Host", "Disk", "Reads", "Writes", "Minutes", "Cost"];
	return table([header, ...rows], [1, 2, 3, 4, 5, 6, 7]);
}

function inWords(best: MachineStages, settings: StageSettings): string {
	const { hardware, stages, sequences } = best;
	const failed = stages.findIndex(({ lacks }) => lacks !== null);
	const store = `Between blocks ${sized(best.storeBytes)} of hidden states lie ${best.store === "disk" ? "on the disk" : "in memory"}.`;
	const fewer =
		sequences > 0 && sequences < settings.sequences
			? ` They are of ${sequences} of the ${settings.sequences} sequences: no more find room, and the runner takes all in one sweep. Set quantization.calibration.sequences to ${sequences}, or find ${sized((best.storeBytes / sequences) * settings.sequences)} for all.`
			: "";
	if (failed === -1)
		return `${hardware.title} (${hardware.runner}) does every stage, at the lowest price. ${store}${fewer}`;
	const done = stages.slice(0, failed).map(({ name }) => name);
	const able = done.length === 0 ? "" : ` ${hardware.title} (${hardware.runner}) can ${done.join(", ")}.`;
	const stage = stages[failed];
	return `No machine does every stage.${able} To ${stage?.name ?? ""} takes ${stage?.lacks ?? ""}. ${store}${fewer}`;
}

function wireOf({ hardware, stages, ...plan }: MachineStages): unknown {
	return {
		runner: hardware.runner,
		flavor: hardware.flavor,
		title: hardware.title,
		...plan,
		fits: stages.every(({ lacks }) => lacks === null),
		stages: stages.map((stage) => ({ ...stage, seconds: Number(stage.seconds.toFixed(1)) })),
	};
}
