import type { Clock } from "../clock.ts";
import type { Ports } from "../jobs/ports.ts";
import type { Metrics } from "../web/metrics.ts";

/** The ports with the time of each call, and from request to publication, going into the metrics. */
export function timedPorts(ports: Ports, metrics: Metrics, clock: Clock): Ports {
	function timed<Request, Result>(
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
	const publish = timed("publish", ports.publish);
	return {
		...ports,
		inspectSource: timed("inspect", ports.inspectSource),
		fetchSource: timed("fetch-source", ports.fetchSource),
		stage: timed("stage", ports.stage),
		fetchStaged: timed("fetch-staged", ports.fetchStaged),
		verify: timed("verify", ports.verify),
		announce: timed("announce", ports.announce),
		reply: timed("reply", ports.reply),
		handleComment: timed("comment", ports.handleComment),
		async publish(request) {
			const publication = await publish(request);
			if (publication.ok) {
				metrics.observePublication((clock.now().getTime() - request.job.createdAt.getTime()) / 1000);
			}
			return publication;
		},
	};
}
