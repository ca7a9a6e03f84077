import type { Request } from "express";
import { type Identity, isMemberOf, mayWriteNamespace } from "./accounts.ts";
import { type HubContext, namespaceId, parameter, requireIdentity } from "./hub-context.ts";
import { HubError } from "./hub-error.ts";
import type { JobRecord } from "./job-store.ts";
import { avatarUrl } from "./people.ts";

type Place = { readonly namespace: string; readonly identity: Identity };

/** Who asks about the jobs of a namespace, if it is a member. */
export function jobReader(context: HubContext, request: Request): Place {
	const identity = requireIdentity(context, request);
	const namespace = parameter(request, "ns");
	if (!isMemberOf(identity, namespace)) throw new HubError(403, `You have no access to the jobs of ${namespace}.`);
	return { namespace, identity };
}

export function jobWriter(context: HubContext, request: Request): Place {
	const found = jobReader(context, request);
	if (!mayWriteNamespace(found.identity, found.namespace, "job.write"))
		throw new HubError(403, `This token may not start or change jobs of ${found.namespace}.`);
	return found;
}

export function jobPerson(context: HubContext, name: string): Record<string, string> {
	return {
		id: namespaceId(context, name),
		name,
		type: context.accounts.user(name) === null ? "org" : "user",
		avatarUrl: avatarUrl(context, name),
	};
}

/** A job as the API shows it. */
export function jobView(context: HubContext, job: JobRecord): Record<string, unknown> {
	const seconds = (from: string, to: string | null): number => {
		const end = to === null ? context.clock.now().getTime() : Date.parse(to);
		return Math.max(0, Math.round((end - Date.parse(from)) / 1000));
	};
	const { status } = job;
	return {
		type: "job",
		id: job.id,
		createdAt: job.createdAt,
		...(job.startedAt === null ? {} : { startedAt: job.startedAt }),
		...(job.finishedAt === null ? {} : { finishedAt: job.finishedAt }),
		...(job.dockerImage === null ? {} : { dockerImage: job.dockerImage }),
		...(job.spaceId === null ? {} : { spaceId: job.spaceId }),
		timeout: job.timeoutSeconds,
		environment: job.environment,
		command: job.command,
		arguments: job.arguments,
		arch: job.arch,
		flavor: job.flavor,
		labels: job.labels,
		secrets: job.secrets,
		createdBy: { id: namespaceId(context, job.createdBy), name: job.createdBy },
		owner: jobPerson(context, job.namespace),
		initiator: job.initiator ?? jobPerson(context, job.createdBy),
		durations: {
			schedulingSecs: seconds(job.createdAt, job.startedAt ?? job.finishedAt),
			...(job.startedAt === null ? {} : { runningSecs: seconds(job.startedAt, job.finishedAt) }),
			totalSecs: seconds(job.createdAt, job.finishedAt),
		},
		status: {
			stage: status.stage,
			message: status.message,
			...(status.cancelReason === null ? {} : { cancelReason: status.cancelReason }),
			failureCount: status.stage === "ERROR" ? 1 : 0,
		},
	};
}
