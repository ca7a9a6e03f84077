import type { JobsContext } from "../jobs/context.ts";
import { type TidyReport, tidyUp } from "../jobs/retention/tidy-up.ts";

/** Looks over what is kept at once, and then as often as the configuration says. `stop` waits for a look under way. */
export function keepTidying(context: JobsContext, onTidied: (report: TidyReport) => void): { stop(): Promise<void> } {
	const { configuration, log } = context;
	let isStopped = false;
	let timer: NodeJS.Timeout | undefined;
	let looking: Promise<void> = Promise.resolve();
	function look(): void {
		looking = tidyUp(context)
			.then(onTidied, (error: unknown) => log.error("What is kept could not be looked over", { error }))
			.then(() => {
				if (isStopped) return;
				timer = setTimeout(look, configuration.retention.everyMinutes * 60_000);
				timer.unref();
			});
	}
	look();
	return {
		async stop() {
			isStopped = true;
			clearTimeout(timer);
			await looking;
		},
	};
}
