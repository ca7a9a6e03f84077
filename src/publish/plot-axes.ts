import { scaleLinear, scaleLog } from "d3-scale";

export type Tick = { readonly at: number; readonly text: string };
export type Axis = {
	/** Where a value lies, in the drawing's units. */
	readonly place: (value: number) => number;
	readonly ticks: readonly Tick[];
};

/** A tenth of a unit of the drawing is more than anybody sees. */
export function round(value: number): number {
	return Math.round(value * 10) / 10;
}

/** Sizes of files in bytes, with some room on both sides. */
export function sizeAxis(
	values: readonly number[],
	[start, end]: readonly [number, number],
): Axis & { readonly unit: string } {
	const largest = Math.max(...values, 1);
	const [unit, bytes] = largest >= 1e9 ? (["GB", 1e9] as const) : (["MB", 1e6] as const);
	const high = largest / bytes;
	const low = Math.min(...values, largest) / bytes;
	const margin = Math.max((high - low) * 0.15, high * 0.1);
	const scale = scaleLinear([Math.max(0, low - margin), high + margin], [start, end]);
	const text = scale.tickFormat(6);
	return {
		place: (value) => round(scale(value / bytes)),
		ticks: scale.ticks(6).map((tick) => ({ at: round(scale(tick)), text: text(tick) })),
		unit,
	};
}

/** More are a thicket. */
const MAXIMUM_TICKS = 10;

/** KL on a logarithmic scale. What lies below it, such as the end of a bar at nothing, is drawn at its lower end. */
export function klAxis(values: readonly number[], [start, end]: readonly [number, number]): Axis {
	const positive = values.filter((value) => value > 0);
	const low = Math.log10(Math.min(...positive, 1));
	const high = Math.log10(Math.max(...positive, 10 ** low));
	const margin = Math.max((high - low) * 0.12, 0.15);
	const lowest = 10 ** (low - margin);
	const scale = scaleLog([lowest, 10 ** (high + margin)], [start, end]);
	const all = scale.ticks();
	const leading = (tick: number): number => Number(tick.toExponential(0).split("e")[0]);
	const sparse = all.length > MAXIMUM_TICKS ? all.filter((tick) => [1, 2, 5].includes(leading(tick))) : all;
	const ticks = sparse.length > MAXIMUM_TICKS ? sparse.filter((tick) => leading(tick) === 1) : sparse;
	return {
		place: (value) => round(scale(Math.max(value, lowest))),
		ticks: ticks.map((tick) => ({ at: round(scale(tick)), text: String(Number(tick.toPrecision(6))) })),
	};
}
