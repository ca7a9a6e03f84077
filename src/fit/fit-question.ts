import { parseByteSize } from "../protocol/byte-size.ts";
import { hardwareIn, usableMemory } from "./hardware.ts";
import { CACHE_TYPES, type CacheType } from "./memory.ts";

/** "Which file fits 8 GB at 8k?" */
export type FitQuestion = {
	/** Bytes that the run may take. */
	readonly memory: number;
	/** How that came about, in words. */
	readonly machine: string;
	/** `null`: not said. */
	readonly context: number | null;
	readonly cache: CacheType;
};

export type FitReading =
	| { readonly ok: true; readonly question: FitQuestion }
	| { readonly ok: false; readonly message: string };

export const DEFAULT_CONTEXT = 8_192;
const MOST_CONTEXT = 16_777_216;
const LEAST_MEMORY = 1e6;

/** Tokens of "8k", "32K", "8192", "128k tokens"; k counts 1024. `null`: it is none. */
export function parseContext(text: string): number | null {
	const [, count, unit] = /^(\d{1,8}(?:\.\d{1,2})?)\s*(k|m)?(?:\s*(?:tokens?|ctx|context))?$/i.exec(text.trim()) ?? [];
	if (count === undefined) return null;
	const factor = unit === undefined ? 1 : unit.toLowerCase() === "k" ? 1024 : 1_048_576;
	const tokens = Math.round(Number(count) * factor);
	return tokens >= 1 && tokens <= MOST_CONTEXT ? tokens : null;
}

const MEMORY = /(\d{1,6}(?:\.\d{1,3})?)\s*([kmgt]i?b|g)\b/i;
const CONTEXT =
	/(?:\b(?:context|ctx|at|with)\s*(?:of|=|:)?\s*)?\b(\d{1,5}(?:\.\d{1,2})?\s*k|(?<=(?:context|ctx|at|with)\s*(?:of|=|:)?\s*)\d{3,8}|\d{3,8}(?=\s*(?:tokens?|ctx|context)\b))\b(?:\s*(?:tokens?|ctx|context)(?:\s+length)?)?/i;
const CACHE =
	/\b(?:(?:cache|kv)(?:[- ]?(?:type|cache))?\s*[=:]?\s*(f16|q8_0|q4_0|q8|q4)|(f16|q8_0|q4_0)\s+(?:kv\s+)?cache)\b/i;
const SMALL_TALK =
	/^(?:which|what|file|files|variant|variants|one|ones|quant|quants|fit|fits|run|runs|on|in|into|of|for|my|me|a|an|the|with|within|at|and|ram|vram|memory|unified|card|please|pls|is|best|to|can|i|use|have|should|do|does|will|model|it|this|context|length|tokens|graphics|machine|laptop|gpu)$/;

/** What a question says in words: the memory or a device's name, the context, the cache's type. */
export function readFitQuestion(text: string): FitReading {
	let rest = ` ${text.slice(0, 400).replaceAll(/[?!,;()"']/g, " ")} `;
	const cacheWords = CACHE.exec(rest);
	const written = (cacheWords?.[1] ?? cacheWords?.[2] ?? "f16").toLowerCase();
	const cache = CACHE_TYPES.find((type) => type === written || type === `${written}_0`) ?? "f16";
	if (cacheWords !== null) rest = rest.replace(cacheWords[0], " ");
	// Some names hold a size, as in RTX 2060 12GB: they are looked for first.
	const named = hardwareIn(rest.replaceAll(/(\d)\s+(?=[kmgt]i?b\b)/gi, "$1"));
	if (named !== null) rest = ` ${named.rest} `;
	const size = MEMORY.exec(rest);
	if (size !== null) rest = rest.replace(size[0], " ");
	const unit = size?.[2]?.toLowerCase() === "g" ? "gb" : (size?.[2] ?? "");
	const said = size === null ? null : parseByteSize(`${size[1]}${unit}`);
	const contextWords = CONTEXT.exec(rest);
	const context = contextWords === null ? null : parseContext(contextWords[1] ?? "");
	if (contextWords !== null) rest = rest.replace(contextWords[0], " ");
	const unknown = rest
		.toLowerCase()
		.split(/\s+/)
		.filter((word) => word !== "" && !SMALL_TALK.test(word));
	if (unknown.length > 0) {
		const word = unknown.join(" ").slice(0, 60);
		return {
			ok: false,
			message: `I do not know "${word}": no device on the Hub's list of hardware has that name. Say its memory instead, as in 8 GB.`,
		};
	}
	if (named === null && said === null) {
		return { ok: false, message: "Say how much memory there is, as in 8 GB, or name the hardware, as in RTX 4090." };
	}
	const device = named?.hardware ?? null;
	const memory = device === null ? (said ?? 0) : usableMemory(device, said === null ? null : said / 1e9);
	if (memory < LEAST_MEMORY) return { ok: false, message: "That is less memory than any model runs in." };
	return { ok: true, question: { memory, machine: machineText(device, said, memory), context, cache } };
}

function gigabytes(bytes: number): string {
	return bytes >= 1e9 ? `${Number((bytes / 1e9).toFixed(1))} GB` : `${Number((bytes / 1e6).toFixed(0))} MB`;
}

function machineText(
	device: {
		readonly name: string;
		readonly count: number;
		readonly unified: boolean;
		readonly sizes: readonly number[];
	} | null,
	said: number | null,
	memory: number,
): string {
	if (device === null) return gigabytes(memory);
	const one = said ?? (device.sizes[0] ?? 0) * 1e9;
	const name = `${device.count > 1 ? `${device.count} × ` : ""}${device.name} with ${gigabytes(one)}`;
	return device.unified ? `${name}, of which macOS lets the graphics have ${gigabytes(memory)}` : name;
}
