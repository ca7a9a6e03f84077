const BYTE_UNITS = ["B", "kB", "MB", "GB", "TB"] as const;

/** Decimal units, as the Hub shows them. */
export function formatBytes(bytes: number): string {
	let value = bytes;
	let unit = 0;
	while (value >= 999.5 && unit < BYTE_UNITS.length - 1) {
		value /= 1000;
		unit++;
	}
	const digits = unit === 0 || value >= 99.5 ? 0 : value >= 9.95 ? 1 : 2;
	return `${value.toFixed(digits)} ${BYTE_UNITS[unit]}`;
}

/** "0.0123 ± 0.0004": as many digits as the error has two of. */
export function formatEstimate(estimate: { readonly mean: number; readonly standardError: number }): string {
	if (!Number.isFinite(estimate.mean)) return "not finite";
	const scale = estimate.standardError > 0 ? estimate.standardError : Math.abs(estimate.mean) / 100;
	const digits = scale > 0 ? Math.min(7, Math.max(0, 1 - Math.floor(Math.log10(scale)))) : 4;
	return `${estimate.mean.toFixed(digits)} ± ${estimate.standardError.toFixed(digits)}`;
}

export function formatPercent(share: number, digits = 1): string {
	return `${(share * 100).toFixed(digits)} %`;
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

export function formatCount(count: number): string {
	return count.toLocaleString("en-US");
}

export function shortSha(sha: string): string {
	return sha.slice(0, 8);
}
