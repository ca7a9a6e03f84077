import { gzipSync } from "node:zlib";

/** What goes out to who asked. */
export type Answer = {
	readonly type: string;
	readonly body: string;
	/** The body by gzip, packed once for all who get this answer. */
	readonly packed: () => Buffer;
};

export function createAnswer(type: string, body: string): Answer {
	let packed: Buffer | null = null;
	return {
		type,
		body,
		packed: () => {
			packed ??= gzipSync(body);
			return packed;
		},
	};
}

export type KeptAnswers = {
	/** The answer under that key while its version stands; otherwise it is made anew. `null` is not kept. */
	get(asked: {
		readonly key: string;
		readonly version: string;
		readonly make: () => Promise<Answer | null>;
	}): Promise<Answer | null>;
};

const MAXIMUM_CHARACTERS = 32_000_000;
/** Answers say how long ago something was. */
const LONGEST_SECONDS = 20;

type Kept = {
	readonly version: string;
	readonly until: number;
	readonly answer: Promise<Answer | null>;
	characters: number;
};

/** Answers that many ask for, made once for all who ask at the same time or soon after; the longest unasked go first. */
export function createKeptAnswers(now: () => number): KeptAnswers {
	const kept = new Map<string, Kept>();
	let characters = 0;

	function forget(key: string, one: Kept): void {
		if (kept.get(key) !== one) return;
		kept.delete(key);
		characters -= one.characters;
	}

	function count(key: string, one: Kept, more: number): void {
		if (kept.get(key) !== one) return;
		one.characters += more;
		characters += more;
		for (const [oldest, other] of kept) {
			if (characters <= MAXIMUM_CHARACTERS) return;
			forget(oldest, other);
		}
	}

	return {
		async get({ key, version, make }) {
			const known = kept.get(key);
			if (known !== undefined) {
				// Last in the order of the map: asked for just now.
				kept.delete(key);
				kept.set(key, known);
				if (known.version === version && known.until > now()) return await known.answer;
				forget(key, known);
			}
			const one: Kept = { version, until: now() + LONGEST_SECONDS * 1000, answer: make(), characters: 0 };
			kept.set(key, one);
			// A key takes room too, and something else as long as its answer is not there.
			count(key, one, key.length + 1000);
			try {
				const answer = await one.answer;
				if (answer === null) forget(key, one);
				// It stays packed beside.
				else count(key, one, 2 * answer.body.length);
				return answer;
			} catch (error) {
				forget(key, one);
				throw error;
			}
		},
	};
}
