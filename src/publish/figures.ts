import type { Measured, Quantizer } from "../protocol/manifest.ts";

/** What the quantizers are called on cards and plots. */
export const QUANTIZER_NAMES: Readonly<Record<Quantizer, string>> = {
	"two-sided-tuned": "YAQA (two-sided, scales tuned)",
	"two-sided": "YAQA (two-sided)",
	"two-sided-cautious": "YAQA (two-sided, cautious)",
	"one-sided": "GPTQ (one-sided)",
	rtn: "round to nearest",
};

/** Best first, as tables list them. */
export const QUANTIZER_ORDER: readonly Quantizer[] = [
	"two-sided-tuned",
	"two-sided",
	"two-sided-cautious",
	"one-sided",
	"rtn",
];

export function inOrder(measured: readonly Measured[]): Measured[] {
	return measured.toSorted(
		(one, other) => QUANTIZER_ORDER.indexOf(one.quantizer) - QUANTIZER_ORDER.indexOf(other.quantizer),
	);
}

/** Decimal units, as disks and download pages count. */
export function formatBytes(bytes: number): string {
	if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(2)} GB`;
	if (bytes >= 1e6) return `${(bytes / 1e6).toFixed(1)} MB`;
	return `${(bytes / 1e3).toFixed(1)} kB`;
}

/** `0.01234 ± 0.00041`: as many decimals as the error is known to, two significant digits of it. */
export function formatEstimate(estimate: { readonly mean: number; readonly standardError: number }): string {
	const { mean, standardError } = estimate;
	if (standardError <= 0 || !Number.isFinite(standardError)) return formatNumber(mean);
	const decimals = Math.min(12, Math.max(0, 1 - Math.floor(Math.log10(standardError))));
	return `${mean.toFixed(decimals)} ± ${standardError.toFixed(decimals)}`;
}

/** Three significant digits. */
export function formatNumber(value: number): string {
	if (!Number.isFinite(value)) return "–";
	if (value === 0) return "0";
	const magnitude = Math.floor(Math.log10(Math.abs(value)));
	return magnitude < -6 ? value.toExponential(2) : value.toFixed(Math.max(0, Math.min(12, 2 - magnitude)));
}

export function formatPercent(share: number): string {
	return `${(share * 100).toFixed(2)} %`;
}

/** `17 % lower`, `3 % higher`, `the same` of `value` against `reference`. */
export function comparison(value: number, reference: number): string {
	if (reference <= 0) return "not comparable";
	const change = (value - reference) / reference;
	if (Math.abs(change) < 0.005) return "the same within half a percent";
	return `${Math.round(Math.abs(change) * 100)} % ${change < 0 ? "lower" : "higher"}`;
}

/** "−62 %" of `value` against `baseline`; `null` where there is nothing to compare with. */
export function formatChange(value: number, baseline: number | null): string | null {
	if (baseline === null || !(baseline > 0) || !Number.isFinite(value)) return null;
	const change = Math.round((value / baseline - 1) * 100);
	return `${change > 0 ? "+" : change < 0 ? "−" : "±"}${Math.abs(change)} %`;
}

/** "2 h 05 min", "3 min 20 s", "4.2 s". */
export function formatSeconds(seconds: number): string {
	if (!Number.isFinite(seconds) || seconds < 0) return "–";
	if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
	const whole = Math.round(seconds);
	if (whole < 60) return `${whole} s`;
	if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
	const minutes = Math.round(whole / 60);
	if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
	return `${Math.floor(minutes / 1440)} d ${Math.floor((minutes % 1440) / 60)} h`;
}

/** A time that still grows or shrinks, in whole minutes: a page that says no more need not change every second. */
export function formatPassing(seconds: number): string {
	if (seconds < 60) return "less than a minute";
	return seconds < 3600 ? `${Math.floor(seconds / 60)} min` : formatSeconds(seconds);
}

export function formatCount(count: number): string {
	return count.toLocaleString("en-US");
}

export function shortSha(sha: string): string {
	return sha.slice(0, 8);
}

/** Millionths of a US dollar as a price. */
export function formatUsd(microUsd: number): string {
	if (microUsd === 0) return "nothing";
	const dollars = microUsd / 1e6;
	return dollars < 0.01 ? "less than $0.01" : `$${dollars.toFixed(2)}`;
}
