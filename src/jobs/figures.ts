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
