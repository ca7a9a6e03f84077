import type { Clock } from "../clock.ts";
import type { Ports } from "../jobs/ports.ts";
import type { Metrics } from "../web/metrics.ts";

/** `work` with the time of each call going into the metrics. */
export function timed<Request, Result>(
	{ metrics, clock }: { readonly metrics: Metrics; readonly clock: Clock },
	step: string,
	work: (request: Request) => Promise<Result>,
): (request: Request) => Promise<Result> {
	return async (request) => {
		const begun = clock.now().getTime();
		try {
			return await work(request);
		} finally {
			metrics.observeStep(step, (clock.now().getTime() - begun) / 1000);
		}
	};
}

/** The ports with the time of each call, and from request to publication, going into the metrics. */
export function timedPorts(ports: Ports, metrics: Metrics, clock: Clock): Ports {
	const into = { metrics, clock };
	const publish = timed(into, "publish", ports.publish);
	return {
		...ports,
		inspectSource: timed(into, "inspect", ports.inspectSource),
		fetchSource: timed(into, "fetch-source", ports.fetchSource),
		stage: timed(into, "stage", ports.stage),
		fetchStaged: timed(into, "fetch-staged", ports.fetchStaged),
		verify: timed(into, "verify", ports.verify),
		announce: timed(into, "announce", ports.announce),
		reply: timed(into, "reply", ports.reply),
		async publish(request) {
			const publication = await publish(request);
			if (publication.ok) {
				metrics.observePublication((clock.now().getTime() - request.job.createdAt.getTime()) / 1000);
			}
			return publication;
		},
	};
}
