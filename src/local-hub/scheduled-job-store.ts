import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { schedule as plan, type ScheduledTask, validate } from "node-cron";
import { z } from "zod";
import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import { readJson, writeJsonAtomically } from "./atomic-file.ts";
import { HubError } from "./hub-error.ts";
import { newId } from "./identifiers.ts";
import { jobSpecSchema } from "./job-spec.ts";
import { isTerminal, type JobRecord, type JobStore } from "./job-store.ts";

const recordSchema = z.object({
	id: z.string(),
	namespace: z.string(),
	createdBy: z.string(),
	createdAt: z.string(),
	/** With the values of its secrets, which each run needs: the file is its owner's alone. */
	spec: jobSpecSchema,
	schedule: z.string(),
	suspend: z.boolean(),
	concurrency: z.boolean(),
	lastJob: z.object({ id: z.string(), at: z.string() }).nullable(),
});
export type ScheduledJob = z.infer<typeof recordSchema>;

const NAMED: Readonly<Record<string, string>> = {
	"@hourly": "0 * * * *",
	"@daily": "0 0 * * *",
	"@weekly": "0 0 * * 0",
	"@monthly": "0 0 1 * *",
	"@yearly": "0 0 1 1 *",
	"@annually": "0 0 1 1 *",
};

export type ScheduledJobStore = {
	create(fields: Omit<ScheduledJob, "id" | "createdAt" | "lastJob">): Promise<ScheduledJob>;
	list(namespace: string): readonly ScheduledJob[];
	get(namespace: string, id: string): ScheduledJob | null;
	change(
		record: ScheduledJob,
		change: Partial<Pick<ScheduledJob, "schedule" | "suspend" | "spec">>,
	): Promise<ScheduledJob>;
	delete(record: ScheduledJob): Promise<void>;
	/** Runs it now. 409 while an earlier run of it goes on and it does not allow two. */
	run(record: ScheduledJob): Promise<JobRecord>;
	nextRunAt(record: ScheduledJob): Date | null;
	close(): Promise<void>;
};

function cronOf(schedule: string): string {
	const cron = NAMED[schedule] ?? schedule;
	if (cron.trim().split(/\s+/).length !== 5 || !validate(cron))
		throw new HubError(
			400,
			`${JSON.stringify(schedule.slice(0, 80))} is no schedule: give a CRON expression, or @hourly.`,
		);
	return cron;
}

/** Jobs that are run at set times, in UTC, as long as this Hub runs. Long, since its functions share what is planned. */
export async function openScheduledJobStore(deps: {
	readonly dataDirectory: string;
	readonly clock: Clock;
	readonly log: Log;
	readonly jobs: JobStore;
}): Promise<ScheduledJobStore> {
	const { clock, log, jobs } = deps;
	const root = join(deps.dataDirectory, "scheduled-jobs");
	await mkdir(root, { recursive: true, mode: 0o700 });
	const records = new Map<string, ScheduledJob>();
	const tasks = new Map<string, ScheduledTask>();

	async function save(record: ScheduledJob): Promise<ScheduledJob> {
		await writeJsonAtomically(join(root, `${record.id}.json`), record);
		records.set(record.id, record);
		return record;
	}

	async function stop(id: string): Promise<void> {
		const task = tasks.get(id);
		tasks.delete(id);
		await task?.destroy();
	}

	async function start(record: ScheduledJob): Promise<void> {
		await stop(record.id);
		if (record.suspend) return;
		const task = plan(
			cronOf(record.schedule),
			async () => {
				const now = records.get(record.id);
				if (now === undefined) return;
				await run(now).catch((error: unknown) => log.warn("A scheduled job did not run", { error, job: record.id }));
			},
			{ timezone: "Etc/UTC" },
		);
		tasks.set(record.id, task);
	}

	async function run(record: ScheduledJob): Promise<JobRecord> {
		const last = record.lastJob === null ? null : jobs.get(record.namespace, record.lastJob.id);
		if (!record.concurrency && last !== null && !isTerminal(last.status.stage))
			throw new HubError(
				409,
				"Another job is already running at the same time, set `concurrency` to allow multiple instances of scheduled jobs to run concurrently",
			);
		const job = await jobs.run(record.spec, {
			namespace: record.namespace,
			user: record.createdBy,
			initiator: { type: "scheduled-job", id: record.id },
		});
		await save({ ...(records.get(record.id) ?? record), lastJob: { id: job.id, at: job.createdAt } });
		return job;
	}

	for (const name of await readdir(root)) {
		const record = name.endsWith(".json") ? await readJson(join(root, name), recordSchema) : null;
		if (record === null) continue;
		records.set(record.id, record);
		await start(record);
	}

	return {
		async create(fields) {
			cronOf(fields.schedule);
			const record = await save({ ...fields, id: newId(), createdAt: clock.now().toISOString(), lastJob: null });
			await start(record);
			return record;
		},
		list: (namespace) =>
			[...records.values()]
				.filter((record) => record.namespace === namespace)
				.sort((one, other) => other.createdAt.localeCompare(one.createdAt)),
		get(namespace, id) {
			const record = records.get(id);
			return record === undefined || record.namespace !== namespace ? null : record;
		},
		async change(record, change) {
			if (change.schedule !== undefined) cronOf(change.schedule);
			const after = await save({ ...(records.get(record.id) ?? record), ...change });
			await start(after);
			return after;
		},
		async delete(record) {
			await stop(record.id);
			records.delete(record.id);
			await rm(join(root, `${record.id}.json`), { force: true });
		},
		run,
		nextRunAt: (record) => tasks.get(record.id)?.getNextRun() ?? null,
		async close() {
			for (const id of [...tasks.keys()]) await stop(id);
		},
	};
}
