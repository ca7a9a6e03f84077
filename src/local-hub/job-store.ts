import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import { readJson, writeJsonAtomically } from "./atomic-file.ts";
import type { Faults } from "./faults.ts";
import { HubError } from "./hub-error.ts";
import { newId } from "./identifiers.ts";
import { JOB_HARDWARE } from "./job-hardware.ts";
import { endGroup, type JobProcess, startJobProcess, startTicksOf } from "./job-process.ts";
import type { JobSpec } from "./job-spec.ts";
import { type GroupUsage, groupUsage } from "./job-usage.ts";

type JobStage = "SCHEDULING" | "RUNNING" | "COMPLETED" | "CANCELED" | "ERROR" | "DELETED";

const recordSchema = z.object({
	id: z.string(),
	namespace: z.string(),
	createdBy: z.string(),
	/** What started it, where that was not a person. */
	initiator: z
		.object({ type: z.enum(["scheduled-job", "duplicated-job", "webhook"]), id: z.string() })
		.nullable()
		.default(null),
	createdAt: z.string(),
	startedAt: z.string().nullable(),
	finishedAt: z.string().nullable(),
	dockerImage: z.string().nullable(),
	spaceId: z.string().nullable(),
	command: z.array(z.string()),
	arguments: z.array(z.string()),
	environment: z.record(z.string(), z.string()),
	/** Their names. The values live in the process's environment alone. */
	secrets: z.array(z.string()),
	flavor: z.string(),
	arch: z.enum(["amd64", "arm64"]),
	timeoutSeconds: z.number(),
	labels: z.record(z.string(), z.string()),
	status: z.object({
		stage: z.enum(["SCHEDULING", "RUNNING", "COMPLETED", "CANCELED", "ERROR", "DELETED"]),
		message: z.string().nullable(),
		cancelReason: z.string().nullable(),
	}),
	process: z.object({ pid: z.number(), startTicks: z.string() }).nullable(),
});
export type JobRecord = z.infer<typeof recordSchema>;

const lineSchema = z.object({ data: z.string(), timestamp: z.string() });
type JobLogLine = z.infer<typeof lineSchema>;

export type JobStore = {
	/** Whether this Hub was started to run jobs at all. */
	readonly runsJobs: boolean;
	run(
		spec: JobSpec,
		by: {
			readonly namespace: string;
			readonly user: string;
			readonly initiator?: JobRecord["initiator"];
			/** Known to the process alone, besides what the spec says. */
			readonly environment?: Readonly<Record<string, string>>;
		},
	): Promise<JobRecord>;
	/** With its secrets; `null` where those went with an earlier process of this Hub. */
	specOf(record: JobRecord): JobSpec | null;
	withoutSecrets(record: JobRecord): JobSpec;
	/** What the processes of a job use now; `null`: it does not run. */
	usage(record: JobRecord): GroupUsage | null;
	/** Newest first. */
	list(namespace: string): readonly JobRecord[];
	get(namespace: string, id: string): JobRecord | null;
	setLabels(record: JobRecord, labels: Readonly<Record<string, string>>): Promise<JobRecord>;
	/** Has the process ended; when it has, the record says CANCELED. A job that has ended stays as it is. */
	cancel(record: JobRecord): JobRecord;
	/** Every line so far goes to `onLine` at once, later ones as they come. The answer stops that. */
	follow(
		record: JobRecord,
		onLine: (line: JobLogLine) => void,
		onEnd: () => void,
	): Promise<{ readonly stop: () => void }>;
	close(): Promise<void>;
};

export type JobOptions = {
	/** Where a job's first word is looked for: jobs run as processes of this machine, whatever image they name. */
	readonly programFolders: readonly string[];
};

const DEFAULT_TIMEOUT_SECONDS = 30 * 60;
const MOST_LINES = 200_000;

export function isTerminal(stage: JobStage): boolean {
	return stage !== "SCHEDULING" && stage !== "RUNNING";
}

function specWithoutSecrets(record: JobRecord): JobSpec {
	const { dockerImage, spaceId, command, environment, flavor, arch, timeoutSeconds, labels } = record;
	const rest = { dockerImage, spaceId, command, environment, flavor, arch, timeoutSeconds, labels };
	return { ...rest, arguments: record.arguments, secrets: {} };
}

type Live = {
	record: JobRecord;
	readonly lines: JobLogLine[];
	readonly followers: Set<{ onLine: (line: JobLogLine) => void; onEnd: () => void }>;
	process: JobProcess | null;
	ending: { readonly stage: JobStage; readonly message: string | null; readonly cancelReason: string | null } | null;
	done: Promise<void>;
};

/**
 * Jobs of this Hub: each a process group of this machine, its record and log in a folder of its own. Long, since its
 * functions share the table of jobs that are held; each does one thing.
 */
export async function openJobStore(deps: {
	readonly dataDirectory: string;
	readonly clock: Clock;
	readonly log: Log;
	readonly faults: Faults;
	readonly options: JobOptions | null;
}): Promise<JobStore> {
	const { clock, log, faults } = deps;
	const root = join(deps.dataDirectory, "jobs");
	const records = new Map<string, JobRecord>();
	const live = new Map<string, Live>();
	const specs = new Map<string, JobSpec>();
	let lastStamp = 0;

	const folderOf = (id: string): string => join(root, id);
	const save = async (record: JobRecord): Promise<void> => {
		records.set(record.id, record);
		await writeJsonAtomically(join(folderOf(record.id), "job.json"), record);
	};

	await mkdir(root, { recursive: true, mode: 0o700 });
	for (const id of await readdir(root)) {
		const record = await readJson(join(folderOf(id), "job.json"), recordSchema);
		if (record === null) continue;
		records.set(id, record);
		if (isTerminal(record.status.stage)) continue;
		// An earlier process of this Hub died: its jobs have nobody who reads what they print.
		if (record.process !== null && startTicksOf(record.process.pid) === record.process.startTicks) {
			await endGroup(record.process.pid, 0);
		}
		await save({
			...record,
			finishedAt: clock.now().toISOString(),
			status: { stage: "ERROR", message: "The Hub was restarted.", cancelReason: null },
		});
	}

	function print(job: Live, data: string): void {
		if (job.lines.length >= MOST_LINES) return;
		// Clients tell lines apart by their time.
		lastStamp = Math.max(clock.now().getTime(), lastStamp + 1);
		const line = { data, timestamp: new Date(lastStamp).toISOString() };
		job.lines.push(line);
		for (const follower of job.followers) follower.onLine(line);
	}

	async function finish(job: Live, status: JobRecord["status"]): Promise<void> {
		const { record } = job;
		await writeFile(join(folderOf(record.id), "log.jsonl"), job.lines.map((line) => JSON.stringify(line)).join("\n"));
		job.record = { ...record, finishedAt: clock.now().toISOString(), status };
		await save(job.record);
		live.delete(record.id);
		for (const follower of job.followers) follower.onEnd();
		job.followers.clear();
	}

	async function execute(
		job: Live,
		request: Pick<JobSpec, "secrets">,
		settings: {
			readonly programFolders: readonly string[];
			readonly empty: boolean;
			readonly environment: Readonly<Record<string, string>>;
		},
	): Promise<void> {
		const { programFolders, empty } = settings;
		const { record } = job;
		const directory = join(folderOf(record.id), "work");
		await mkdir(directory, { recursive: true, mode: 0o700 });
		const [program = "", ...words] = empty ? ["true"] : [...record.command, ...record.arguments];
		const hardware = JOB_HARDWARE.find((one) => one.name === record.flavor);
		if (job.ending !== null) {
			await finish(job, job.ending);
			return;
		}
		const startedAt = clock.now().toISOString();
		print(job, `===== Job started at ${startedAt} =====`);
		try {
			job.process = await startJobProcess({
				command: program,
				arguments: words,
				directory,
				environment: {
					...record.environment,
					...request.secrets,
					...settings.environment,
					PATH: [...programFolders, "/usr/local/bin", "/usr/bin", "/bin"].join(":"),
					HOME: directory,
					TMPDIR: directory,
					JOB_ID: record.id,
					ACCELERATOR: hardware?.accelerator?.model ?? "none",
					CPU_CORES: hardware?.cpu.split(" ")[0] ?? "1",
					MEMORY: hardware?.ram.replace(" GB", "Gi") ?? "1Gi",
				},
				onLine: (line) => print(job, line),
			});
		} catch (error) {
			const reason = error instanceof Error ? error.message : "it could not be started";
			await finish(job, { stage: "ERROR", message: `The command cannot be run: ${reason}`, cancelReason: null });
			return;
		}
		const { pid, startTicks, ended } = job.process;
		job.record = {
			...record,
			startedAt,
			status: { stage: "RUNNING", message: null, cancelReason: null },
			process: { pid, startTicks },
		};
		await save(job.record);
		if (job.ending !== null) await endGroup(pid);
		const timer = setTimeout(() => {
			job.ending ??= { stage: "ERROR", message: "Job timeout", cancelReason: null };
			void endGroup(pid);
		}, record.timeoutSeconds * 1000);
		const result = await ended;
		clearTimeout(timer);
		if (job.ending !== null) await finish(job, job.ending);
		else if (result.code === 0) await finish(job, { stage: "COMPLETED", message: null, cancelReason: null });
		else {
			const how = result.code === null ? `signal ${result.signal}` : `exit code: ${result.code}`;
			await finish(job, { stage: "ERROR", message: `Job failed with ${how}. Reason: Error`, cancelReason: null });
		}
	}

	/** Ends a job that runs; resolves when its record says so. */
	async function end(job: Live, status: NonNullable<Live["ending"]>): Promise<void> {
		job.ending ??= status;
		if (job.process !== null) await endGroup(job.process.pid);
		await job.done;
	}

	return {
		runsJobs: deps.options !== null,
		async run(request, by) {
			if (deps.options === null) throw new HubError(501, "This Hub runs no jobs.");
			const { programFolders } = deps.options;
			const { secrets, timeoutSeconds, ...rest } = request;
			const fate = {
				empty: faults.takeEmptyJob(),
				vanishing: faults.takeVanishingJob(),
				unpaid: faults.takeUnpaidJob(),
			};
			const record: JobRecord = {
				...rest,
				id: newId(),
				namespace: by.namespace,
				createdBy: by.user,
				initiator: by.initiator ?? null,
				createdAt: clock.now().toISOString(),
				startedAt: null,
				finishedAt: null,
				secrets: Object.keys(secrets),
				timeoutSeconds: timeoutSeconds ?? DEFAULT_TIMEOUT_SECONDS,
				status: { stage: "SCHEDULING", message: null, cancelReason: null },
				process: null,
			};
			await mkdir(folderOf(record.id), { mode: 0o700 });
			await save(record);
			const job: Live = {
				record,
				lines: [],
				followers: new Set(),
				process: null,
				ending: null,
				done: Promise.resolve(),
			};
			live.set(record.id, job);
			specs.set(record.id, request);
			if (fate.unpaid) job.ending = { stage: "CANCELED", message: null, cancelReason: "NO_CREDITS" };
			job.done = execute(job, request, {
				programFolders,
				empty: fate.empty,
				environment: by.environment ?? {},
			}).catch((error: unknown) => {
				log.error("A job could not be carried out", { error, job: record.id });
			});
			if (fate.vanishing) {
				const gone = job.done.then(() => undefined);
				void end(job, { stage: "DELETED", message: null, cancelReason: null })
					.then(() => gone)
					.then(async () => {
						records.delete(record.id);
						await rm(folderOf(record.id), { recursive: true, force: true });
					});
			}
			return record;
		},
		specOf(record) {
			const known = specs.get(record.id);
			if (known !== undefined) return known;
			return record.secrets.length > 0 ? null : specWithoutSecrets(record);
		},
		withoutSecrets: specWithoutSecrets,
		usage(record) {
			const running = live.get(record.id)?.process ?? null;
			return running === null ? null : groupUsage(running.pid);
		},
		list: (namespace) =>
			[...records.values()]
				.filter((record) => record.namespace === namespace)
				.sort((one, other) => (one.createdAt < other.createdAt ? 1 : -1)),
		get(namespace, id) {
			const record = records.get(id);
			return record === undefined || record.namespace !== namespace ? null : record;
		},
		async setLabels(record, labels) {
			const job = live.get(record.id);
			const after = { ...(job?.record ?? record), labels: { ...labels } };
			if (job !== undefined) job.record = after;
			await save(after);
			return after;
		},
		cancel(record) {
			const job = live.get(record.id);
			if (job !== undefined) {
				void end(job, { stage: "CANCELED", message: "Canceled by user", cancelReason: null }).catch((error: unknown) =>
					log.error("A job could not be ended", { error, job: record.id }),
				);
			}
			return job?.record ?? record;
		},
		async follow(record, onLine, onEnd) {
			const job = live.get(record.id);
			if (job !== undefined) {
				const follower = { onLine, onEnd };
				for (const line of job.lines) onLine(line);
				job.followers.add(follower);
				return { stop: () => void job.followers.delete(follower) };
			}
			const text = await readFile(join(folderOf(record.id), "log.jsonl"), "utf8").catch(() => "");
			for (const line of text.split("\n")) if (line !== "") onLine(lineSchema.parse(JSON.parse(line)));
			onEnd();
			return { stop: () => undefined };
		},
		async close() {
			await Promise.all(
				[...live.values()].map((job) =>
					end(job, { stage: "ERROR", message: "The Hub was stopped.", cancelReason: null }),
				),
			);
		},
	};
}
