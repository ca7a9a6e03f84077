/** What jobs can run on, as `GET /api/jobs/hardware` lists it. Prices are those of the Hub's published list. */
type JobHardware = {
	readonly name: string;
	readonly prettyName: string;
	readonly cpu: string;
	readonly ram: string;
	readonly ephemeralStorage: string;
	readonly accelerator: {
		readonly type: "gpu";
		readonly model: string;
		readonly quantity: string;
		readonly vram: string;
		readonly manufacturer: "Nvidia";
	} | null;
	readonly unitCostMicroUSD: number;
	readonly unitCostUSD: number;
	readonly unitLabel: "minute";
};

type Row = readonly [
	name: string,
	prettyName: string,
	cores: number,
	gigabytes: number,
	dollarsPerHour: number,
	gpu?: readonly [model: string, quantity: number, gigabytesEach: number],
];

const ROWS: readonly Row[] = [
	["cpu-basic", "CPU Basic", 2, 16, 0.01],
	["cpu-upgrade", "CPU Upgrade", 8, 32, 0.03],
	["cpu-xl", "CPU XL", 16, 124, 1],
	["cpu-performance", "CPU Performance", 32, 256, 1.9],
	["t4-small", "Nvidia T4 - small", 4, 15, 0.4, ["T4", 1, 16]],
	["t4-medium", "Nvidia T4 - medium", 8, 30, 0.6, ["T4", 1, 16]],
	["l4x1", "1x Nvidia L4", 8, 30, 0.8, ["L4", 1, 24]],
	["l4x4", "4x Nvidia L4", 48, 186, 3.8, ["L4", 4, 24]],
	["l40sx1", "1x Nvidia L40S", 8, 62, 1.8, ["L40S", 1, 48]],
	["l40sx4", "4x Nvidia L40S", 48, 382, 8.3, ["L40S", 4, 48]],
	["l40sx8", "8x Nvidia L40S", 192, 1534, 23.5, ["L40S", 8, 48]],
	["a10g-small", "Nvidia A10G - small", 4, 15, 1, ["A10G", 1, 24]],
	["a10g-large", "Nvidia A10G - large", 12, 46, 1.5, ["A10G", 1, 24]],
	["a10g-largex2", "2x Nvidia A10G - large", 24, 92, 3, ["A10G", 2, 24]],
	["a10g-largex4", "4x Nvidia A10G - large", 48, 184, 5, ["A10G", 4, 24]],
	["a100-large", "Nvidia A100 - large", 12, 142, 2.5, ["A100", 1, 80]],
	["a100x4", "4x Nvidia A100", 48, 568, 10, ["A100", 4, 80]],
	["a100x8", "8x Nvidia A100", 96, 1136, 20, ["A100", 8, 80]],
	["h200", "Nvidia H200", 23, 256, 5, ["H200", 1, 141]],
	["h200x2", "2x Nvidia H200", 46, 512, 10, ["H200", 2, 141]],
	["h200x4", "4x Nvidia H200", 92, 1024, 20, ["H200", 4, 141]],
	["h200x8", "8x Nvidia H200", 184, 2048, 40, ["H200", 8, 141]],
	["rtx-pro-6000", "Nvidia RTX PRO 6000", 16, 128, 2.75, ["RTX PRO 6000", 1, 96]],
	["rtx-pro-6000x2", "2x Nvidia RTX PRO 6000", 32, 256, 5.5, ["RTX PRO 6000", 2, 96]],
	["rtx-pro-6000x4", "4x Nvidia RTX PRO 6000", 64, 512, 11, ["RTX PRO 6000", 4, 96]],
	["rtx-pro-6000x8", "8x Nvidia RTX PRO 6000", 128, 1024, 22, ["RTX PRO 6000", 8, 96]],
];

export const JOB_HARDWARE: readonly JobHardware[] = ROWS.map(
	([name, prettyName, cores, gigabytes, dollarsPerHour, gpu]) => ({
		name,
		prettyName,
		cpu: `${cores} vCPU`,
		ram: `${gigabytes} GB`,
		ephemeralStorage: gpu === undefined ? "50 GB" : "200 GB",
		accelerator:
			gpu === undefined
				? null
				: {
						type: "gpu",
						model: gpu[0],
						quantity: String(gpu[1]),
						vram: `${gpu[1] * gpu[2]} GB`,
						manufacturer: "Nvidia",
					},
		unitCostMicroUSD: Math.round((dollarsPerHour / 60) * 1_000_000),
		unitCostUSD: Math.round((dollarsPerHour / 60) * 1_000_000) / 1_000_000,
		unitLabel: "minute",
	}),
);
