/** Sizes in bytes as people write them: `4.5GB` (decimal), `4.2GiB` (binary). */

const DECIMAL = [
	["TB", 1e12],
	["GB", 1e9],
	["MB", 1e6],
	["kB", 1e3],
] as const;
const BINARY = [
	["TiB", 2 ** 40],
	["GiB", 2 ** 30],
	["MiB", 2 ** 20],
	["KiB", 2 ** 10],
] as const;
const UNITS: ReadonlyMap<string, number> = new Map(
	[...DECIMAL, ...BINARY].map(([name, size]) => [name.toLowerCase(), size] as const),
);
const WRITTEN = /^(?:(\d{1,6})(?:\.(\d{1,3}))?([kmgt]i?b)|(\d{1,15}))$/;
const MOST_BYTES = 1e14;

/**
 * Whole bytes of `4.5gb`, `512mib` or a bare number, in any case; `null` for anything else, for 0 and above 100 TB.
 * kB, MB, GB and TB are powers of 1000; KiB, MiB, GiB and TiB of 1024.
 */
export function parseByteSize(text: string): number | null {
	const [, whole, part = "0", unit = "", plain] = WRITTEN.exec(text.toLowerCase()) ?? [];
	if (whole === undefined && plain === undefined) return null;
	// Six digits and three decimals of a tebibyte are more than a double holds exactly.
	const thousandths = BigInt(whole ?? 0) * 1000n + BigInt(part.padEnd(3, "0"));
	const size = plain === undefined ? (thousandths * BigInt(UNITS.get(unit) ?? 0)) / 1000n : BigInt(plain);
	return size > 0n && size <= BigInt(MOST_BYTES) ? Number(size) : null;
}

/**
 * The one spelling of `size`: in its largest decimal unit, else its largest binary one, else bare. A unit serves where
 * three decimals are exact. `parseByteSize` gives `size` back.
 */
export function byteSizeText(size: number): string {
	const thousandths = BigInt(size) * 1000n;
	for (const units of [DECIMAL, BINARY]) {
		const [name, unit] = units.find(([, bytes]) => bytes <= size) ?? ["", 0];
		if (unit === 0 || thousandths % BigInt(unit) !== 0n) continue;
		const count = thousandths / BigInt(unit);
		const decimals = String(count % 1000n).padStart(3, "0");
		return `${count / 1000n}.${decimals}`.replace(/\.?0+$/, "") + name;
	}
	return String(size);
}
