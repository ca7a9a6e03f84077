import { formatUsd } from "../../publish/figures.ts";
import type { MachineEstimate } from "./machine-estimate.ts";
import { GIB } from "./memory.ts";

export function gigabytes(bytes: number): string {
	return `${(bytes / GIB).toFixed(bytes < 10 * GIB ? 1 : 0)} GiB`;
}

function duration(minutes: number): string {
	if (minutes < 1.5) return "about a minute";
	if (minutes < 90) return `about ${Math.round(minutes)} minutes`;
	return `about ${(minutes / 60).toFixed(1)} hours`;
}

/** The choice of a machine in words. */
export function explainChoice(choice: MachineEstimate, estimates: readonly MachineEstimate[]): string {
	const { hardware } = choice;
	const { accelerator } = hardware;
	const count = accelerator?.count ?? 1;
	const why: string[] = [];
	const cheaper = estimates.filter(
		(other) => !other.fits && other.hardware.microUsdPerMinute <= hardware.microUsdPerMinute && other !== choice,
	);
	const alone = estimates.some(
		(other) => other.fits && !other.inTime && (other.hardware.accelerator?.count ?? 1) < count,
	);
	if (choice.inTime && alone) why.push(`fewer accelerators would take too long, so that ${count} share the sketch`);
	else if (cheaper.length > 0) why.push(`${cheaper.length} cheaper or equal ones have too little memory`);
	if (estimates.filter((other) => other.fits).length > 1) why.push("the cheapest that fits");
	const reason = why.length === 0 ? "" : `: ${why.join("; ")}`;
	const source = choice.isLearned ? "by earlier jobs on such a machine" : "before any job was measured there";
	const cost = choice.microUsd === 0 ? "at no charge" : `for ${formatUsd(choice.microUsd)}`;
	return `${hardware.title} (${hardware.runner})${reason}. Takes ${gigabytes(choice.neededBytes)} of its ${gigabytes(choice.availableBytes)} of memory and ${duration(choice.minutes)}, ${cost}; estimated ${source}.`;
}
