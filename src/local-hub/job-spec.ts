import { z } from "zod";
import { HubError } from "./hub-error.ts";
import { JOB_HARDWARE } from "./job-hardware.ts";

const text = z.record(z.string().regex(/^[a-zA-Z][_a-zA-Z0-9]*$/), z.string().max(100_000));
export const labelsSchema = z.record(
	z
		.string()
		.max(100)
		.regex(/^[a-zA-Z0-9._-]+$/),
	z
		.string()
		.max(100)
		.regex(/^[a-zA-Z0-9._-]*$/),
);

/** What somebody asks to have run: the body of a job, of a scheduled one, and of a webhook that starts one. */
export const jobBodySchema = z.object({
	spaceId: z.string().optional(),
	dockerImage: z.string().min(1).optional(),
	command: z.array(z.string().min(1)).min(1).optional(),
	arguments: z.array(z.string()).optional(),
	environment: text.default({}),
	secrets: text.default({}),
	flavor: z.enum(JOB_HARDWARE.map((one) => one.name)),
	arch: z.enum(["amd64", "arm64"]).default("amd64"),
	timeoutSeconds: z.number().int().positive().nullable().default(null),
	attempts: z.number().int().min(1).default(1),
	labels: labelsSchema.default({}),
});

export const jobSpecSchema = z.object({
	dockerImage: z.string().nullable(),
	spaceId: z.string().nullable(),
	command: z.array(z.string()),
	arguments: z.array(z.string()),
	environment: z.record(z.string(), z.string()),
	secrets: z.record(z.string(), z.string()),
	flavor: z.string(),
	arch: z.enum(["amd64", "arm64"]),
	timeoutSeconds: z.number().nullable(),
	labels: z.record(z.string(), z.string()),
});
/** What a run needs, with the values of its secrets. */
export type JobSpec = z.infer<typeof jobSpecSchema>;

/** The spec that a body asks for; a 400 for one that this Hub cannot run. */
export function specOf(body: z.infer<typeof jobBodySchema>): JobSpec {
	if ((body.dockerImage === undefined) === (body.spaceId === undefined))
		throw new HubError(400, "Give either a dockerImage or a spaceId.");
	if (body.command === undefined) throw new HubError(400, "This Hub needs a command to run.");
	return {
		dockerImage: body.dockerImage ?? null,
		spaceId: body.spaceId ?? null,
		command: body.command,
		arguments: body.arguments ?? [],
		environment: body.environment,
		secrets: body.secrets,
		flavor: body.flavor,
		arch: body.arch,
		timeoutSeconds: body.timeoutSeconds,
		labels: body.labels,
	};
}

/** A spec as answers show it: of the secrets their names. */
export function shownSpec(spec: JobSpec): Record<string, unknown> {
	return {
		...(spec.dockerImage === null ? {} : { dockerImage: spec.dockerImage }),
		...(spec.spaceId === null ? {} : { spaceId: spec.spaceId }),
		environment: spec.environment,
		command: spec.command,
		arguments: spec.arguments,
		arch: spec.arch,
		flavor: spec.flavor,
		labels: spec.labels,
		secrets: Object.keys(spec.secrets),
	};
}
