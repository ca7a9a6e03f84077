/** A kind of machine that a runner offers. */
export type Hardware = {
	readonly runner: string;
	/** How the runner names it. */
	readonly flavor: string;
	readonly title: string;
	readonly cores: number;
	readonly memoryBytes: number;
	readonly accelerator: { readonly model: string; readonly count: number; readonly bytesEach: number } | null;
	/** Of the disk that a job may fill; absent: nobody says. */
	readonly diskBytes?: number;
	/** Millionths of a US dollar a minute; 0 for a machine of one's own. */
	readonly microUsdPerMinute: number;
};
