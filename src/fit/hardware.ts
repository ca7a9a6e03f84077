import { SKUS } from "@huggingface/tasks";
import { z } from "zod";

/** One device that models run on, by the Hub's list of hardware. */
export type Hardware = {
	readonly name: string;
	/** How many of them. */
	readonly count: number;
	/** Memory of one, in GB as it is sold; several where it is sold with several. */
	readonly sizes: readonly number[];
	/** Processor and graphics share it. */
	readonly unified: boolean;
};

type Known = {
	readonly name: string;
	readonly words: readonly string[];
	readonly sizes: readonly number[];
	readonly unified: boolean;
};

const MAKERS: ReadonlySet<string> = new Set([
	"nvidia",
	"geforce",
	"amd",
	"radeon",
	"intel",
	"apple",
	"gpu",
	"mac",
	"macbook",
]);

function wordsOf(text: string): readonly string[] {
	return (
		text
			.toLowerCase()
			// "RTX4090" and "rtx-4090" are the same card.
			.replaceAll(/\b(rtx|gtx|rx|arc)[- ]?(?=[a-z]?\d)/g, "$1 ")
			.replaceAll(/(\d)[- ]?(ti|super|xt|xtx)\b/g, "$1 $2")
			.split(/[^a-z0-9+.]+/)
			.filter((word) => word !== "" && !MAKERS.has(word))
	);
}

/** Processors come without memory: theirs is the machine's. */
const Sku = z.looseObject({ memory: z.array(z.number()).optional(), aliases: z.array(z.string()).optional() });

function knownHardware(): readonly Known[] {
	const found: Known[] = [];
	const add = (name: string, listed: unknown, unified: boolean): void => {
		const sku = Sku.parse(listed);
		if (sku.memory === undefined || sku.memory.length === 0) return;
		const sizes = sku.memory.toSorted((one, other) => one - other);
		for (const written of [name, ...(sku.aliases ?? [])]) {
			const words = wordsOf(written);
			if (words.length > 0) found.push({ name, words, sizes, unified });
		}
	};
	for (const maker of Object.values(SKUS.GPU)) {
		for (const [name, sku] of Object.entries(maker)) add(name, sku, false);
	}
	for (const [name, sku] of Object.entries(SKUS["Apple Silicon"]["-"])) add(name, sku, true);
	// The longest name first: an "RTX 4090 Mobile" is no "RTX 4090".
	return found.toSorted((one, other) => other.words.length - one.words.length);
}

const KNOWN = knownHardware();

/** The device that a text names, with the words that are left of it; `null`: none that the list knows. */
export function hardwareIn(text: string): { readonly hardware: Hardware; readonly rest: string } | null {
	const several = /\b(\d{1,2})\s*[x×]\s*(?=\D)/i.exec(text);
	const count = Number(several?.[1] ?? 1);
	const words = wordsOf(several === null ? text : text.replace(several[0], " "));
	for (const known of KNOWN) {
		const start = words.findIndex((_, index) => known.words.every((word, place) => words[index + place] === word));
		if (start === -1) continue;
		const rest = [...words.slice(0, start), ...words.slice(start + known.words.length)].join(" ");
		return { hardware: { name: known.name, count, sizes: known.sizes, unified: known.unified }, rest };
	}
	return null;
}

/** macOS lets the graphics have two thirds of a small machine's memory and three quarters of a large one's. */
const LARGE_UNIFIED_GB = 36;

/**
 * Bytes that a run may take on it. Makers sell GiB as GB: counting decimal ones leaves 7 % for driver and screen.
 * `size`: the memory of one in GB, where somebody said it; the smallest that it is sold with otherwise.
 */
export function usableMemory(hardware: Hardware, size: number | null): number {
	const one = size ?? hardware.sizes[0] ?? 0;
	const share = hardware.unified ? (one >= LARGE_UNIFIED_GB ? 3 / 4 : 2 / 3) : 1;
	return hardware.count * one * 1e9 * share;
}

/** Names to choose from, each once, as the list orders them. */
export const HARDWARE_NAMES: readonly string[] = [...new Set(knownHardware().map((known) => known.name))].toSorted(
	(one, other) => one.localeCompare(other, "en", { numeric: true }),
);
