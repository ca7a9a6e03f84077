import { loadConfiguration } from "../config/load.ts";
import type { Configuration } from "../config/schema.ts";
import type { HubAccess } from "../hub/hub-access.ts";
import { createEstimator } from "../jobs/estimate/estimator.ts";
import type { Hardware } from "../jobs/estimate/hardware.ts";
import { recipesOfRules } from "../jobs/watch-rules.ts";
import { formatUsd } from "../publish/figures.ts";
import { readAccess } from "../server/hub-access.ts";
import { configuredMachines, hubMachines } from "../server/machines.ts";
import { inspectSource } from "../verify/inspect-source.ts";
import { problemLine } from "./config-check.ts";
import { EXIT_CODES, type ExitCode } from "./exit-codes.ts";
import { planConfiguration, readConfigFile, readConfigOfRepo } from "./plan-configuration.ts";
import { printable, type Terminal, table } from "./terminal.ts";

export type PlanOptions = {
	readonly repo: string;
	readonly revision: string | null;
	/** How many variants; the configuration's recipes when `null`. */
	readonly variants: string | null;
	/** Stage by stage, of the configuration alone. */
	readonly stages: boolean;
	readonly sequences: string | null;
	readonly length: string | null;
	/** Of every machine, instead of what it says itself. */
	readonly disk: string | null;
	readonly configurationPath: string | null;
	readonly json: boolean;
};

/** Whatever jobs could run on: this machine, GitHub's as configured, and the Hub's. */
async function machinesOf(
	configuration: Configuration,
	hub: HubAccess,
	terminal: Terminal,
): Promise<readonly Hardware[]> {
	const own = await Promise.all(
		(["local", "github-actions"] as const).map(
			async (kind) =>
				(await configuredMachines({ ...configuration, runner: { ...configuration.runner, kind } }, hub)) ?? [],
		),
	);
	try {
		return [...own.flat(), ...(await hubMachines(hub))];
	} catch (error) {
		terminal.err(
			`The Hub's machines cannot be listed: ${error instanceof Error ? printable(error.message) : "unknown reason"}\n`,
		);
		return own.flat();
	}
}

/** `yaqa-bot plan`: what a repo's job needs and costs, machine by machine. Starts nothing. */
export async function plan(options: PlanOptions, terminal: Terminal): Promise<ExitCode> {
	const refuse = (message: string, code: ExitCode): ExitCode => {
		terminal.err(`${printable(message)}\n`);
		if (options.json) terminal.out(`${JSON.stringify({ ok: false, error: { message } })}\n`);
		return code;
	};
	const loaded = loadConfiguration(options.configurationPath === null ? {} : { path: options.configurationPath });
	if (!loaded.ok) return refuse(loaded.problems.map(problemLine).join("\n"), EXIT_CODES.usage.code);
	const { configuration, secrets } = loaded;
	const { repo } = options;
	const wanted = options.variants ?? String(recipesOfRules(configuration.watch, repo).length);
	if (!/^[1-9]\d?$/.test(wanted)) return refuse("--variants is a number from 1 to 99.", EXIT_CODES.usage.code);
	const hub = readAccess(configuration, secrets);
	const isFile = /\.json$/i.test(repo);
	if (isFile || options.stages) {
		const read = isFile ? await readConfigFile(repo) : await readConfigOfRepo(hub, repo, options.revision ?? "main");
		if (!read.ok) return refuse(read.message, EXIT_CODES.refused.code);
		const machines = await machinesOf(configuration, hub, terminal);
		return planConfiguration(
			{ ...options, name: repo, document: read.document, variants: Number(wanted), configuration, machines },
			terminal,
		);
	}
	if (options.disk !== null || options.sequences !== null || options.length !== null) {
		return refuse("--disk, --sequences and --length go with --stages or a config.json.", EXIT_CODES.usage.code);
	}
	const inspection = await inspectSource({
		...hub,
		repo,
		revision: options.revision ?? "main",
		limits: { maximumWeightBytes: Number.MAX_SAFE_INTEGER },
	});
	if (!inspection.ok) {
		return refuse(`${inspection.refusal.message} ${inspection.refusal.remedy}`, EXIT_CODES.refused.code);
	}
	const machines = await machinesOf(configuration, hub, terminal);
	const { facts } = inspection;
	const request = { facts, variants: Number(wanted), sketchReused: false };
	const planned = createEstimator(configuration, machines, [])(request);
	const rows = planned.estimates.map((one) => ({
		runner: one.hardware.runner,
		flavor: one.hardware.flavor,
		title: one.hardware.title,
		fits: one.fits,
		neededBytes: one.neededBytes,
		availableBytes: Math.floor(one.availableBytes),
		minutes: Number(one.minutes.toFixed(1)),
		microUsd: one.microUsd,
	}));
	const gibibytes = (bytes: number) => (bytes / 1024 ** 3).toFixed(1);
	const people = (text: string) => (options.json ? terminal.err(text) : terminal.out(text));
	people(
		`${printable(repo)} at ${facts.sha.slice(0, 7)}: ${facts.architecture}, ${facts.parameters} parameters, ${wanted} variants\n\n`,
	);
	people(
		`${table(
			[
				["Runner", "Machine", "Needs GiB", "Has GiB", "Minutes", "Cost", ""],
				...rows.map((row) => [
					row.runner,
					printable(row.title),
					gibibytes(row.neededBytes),
					gibibytes(row.availableBytes),
					row.minutes.toFixed(1),
					row.microUsd === 0 ? "none" : formatUsd(row.microUsd),
					row.fits ? "" : "too small",
				]),
			],
			[2, 3, 4, 5],
		)}\n\n${printable(planned.text)}\n`,
	);
	if (options.json) {
		terminal.out(
			`${JSON.stringify({ ok: planned.choice !== null, repo, sha: facts.sha, parameters: facts.parameters, text: planned.text, choice: planned.choice === null ? null : { runner: planned.choice.hardware.runner, flavor: planned.choice.hardware.flavor }, machines: rows })}\n`,
		);
	}
	return planned.choice === null ? EXIT_CODES.failed.code : EXIT_CODES.ok.code;
}
