import { isDeepStrictEqual } from "node:util";
import { isMap, isScalar, isSeq, type Pair, parseDocument, stringify, type YAMLMap, type YAMLSeq } from "yaml";

export type ListEdit =
	| { readonly ok: true; readonly text: string; readonly changed: number }
	| { readonly ok: false; readonly message: string };

type Place = { readonly section: string; readonly key: string };
type Splice = { readonly from: number; readonly to: number; readonly text: string };

function lineStart(text: string, offset: number): number {
	return text.lastIndexOf("\n", offset - 1) + 1;
}

/** Where the line's last character ends, its line break left out. */
function lineEnd(text: string, offset: number): number {
	const found = text.indexOf("\n", offset);
	if (found < 0) return text.length;
	return text[found - 1] === "\r" ? found - 1 : found;
}

function startOf(node: unknown): number | null {
	const range: unknown = typeof node === "object" && node !== null ? Reflect.get(node, "range") : null;
	return Array.isArray(range) && typeof range[0] === "number" ? range[0] : null;
}

/** Where a value ends, comments and line breaks after it left out. */
function endOf(node: unknown): number | null {
	const range: unknown = typeof node === "object" && node !== null ? Reflect.get(node, "range") : null;
	return Array.isArray(range) && typeof range[1] === "number" ? range[1] : null;
}

function pairOf(map: YAMLMap, key: string): Pair | null {
	return map.items.find((pair) => isScalar(pair.key) && pair.key.value === key) ?? null;
}

function quoted(name: string): string {
	return stringify(name).trim();
}

function additionTo(text: string, list: YAMLSeq, name: string): Splice | null {
	const last = list.items.at(-1);
	const start = startOf(list);
	if (start === null) return null;
	if (list.flow === true) {
		if (last === undefined) return { from: start + 1, to: start + 1, text: quoted(name) };
		const end = endOf(last);
		return end === null ? null : { from: end, to: end, text: `, ${quoted(name)}` };
	}
	const itemStart = startOf(last);
	const itemEnd = endOf(last);
	if (itemStart === null || itemEnd === null) return null;
	const prefix = text.slice(lineStart(text, itemStart), itemStart);
	if (!/^\s*- +$/.test(prefix)) return null;
	const at = lineEnd(text, itemEnd);
	return { from: at, to: at, text: `${text.includes("\r\n") ? "\r\n" : "\n"}${prefix}${quoted(name)}` };
}

function removalFrom(text: string, pair: Pair, list: YAMLSeq, name: string): readonly Splice[] | null {
	const index = list.items.findIndex((item) => isScalar(item) && String(item.value) === name);
	const item = list.items[index];
	const [start, end] = [startOf(item), endOf(item)];
	if (start === null || end === null) return null;
	if (list.flow === true) {
		const next = startOf(list.items[index + 1]);
		const before = endOf(list.items[index - 1]);
		if (next !== null) return [{ from: start, to: next, text: "" }];
		return [{ from: before ?? start, to: end, text: "" }];
	}
	const from = lineStart(text, start);
	const breakAt = text.indexOf("\n", end);
	const line = { from, to: breakAt < 0 ? text.length : breakAt + 1, text: "" };
	if (list.items.length > 1) return [line];
	// A block list without items would be no list.
	const key = endOf(pair.key);
	const colon = key === null ? -1 : text.indexOf(":", key);
	return colon < 0 ? null : [line, { from: colon + 1, to: colon + 1, text: " []" }];
}

function newKey(text: string, section: Pair, key: string, name: string): Splice | null {
	const line = `${key}: [${quoted(name)}]`;
	const { value } = section;
	const newline = text.includes("\r\n") ? "\r\n" : "\n";
	if (isMap(value)) {
		const first = startOf(value.items[0]?.key);
		if (value.flow === true) {
			const start = startOf(value);
			if (start === null) return null;
			return { from: start + 1, to: start + 1, text: first === null ? line : `${line}, ` };
		}
		if (first === null) return null;
		const indent = text.slice(lineStart(text, first), first);
		return /^ *$/.test(indent) ? { from: first, to: first, text: `${line}${newline}${indent}` } : null;
	}
	const sectionKey = endOf(section.key);
	if (sectionKey === null || (value !== null && !(isScalar(value) && (value.source ?? "") === ""))) return null;
	const at = lineEnd(text, sectionKey);
	return { from: at, to: at, text: `${newline}  ${line}` };
}

function splicesFor(text: string, place: Place, name: string, add: boolean): readonly Splice[] | null {
	const document = parseDocument(text);
	const root = document.contents;
	const newline = text.includes("\r\n") ? "\r\n" : "\n";
	const isEmpty = root === null || (isScalar(root) && root.value === null);
	if (!isEmpty && !isMap(root)) return null;
	const section = isMap(root) ? pairOf(root, place.section) : null;
	if (section === null) {
		if (isMap(root) && root.flow === true) return null;
		const gap = text === "" || text.endsWith("\n") ? "" : newline;
		const lines = `${gap}${place.section}:${newline}  ${place.key}: [${quoted(name)}]${newline}`;
		return [{ from: text.length, to: text.length, text: lines }];
	}
	const pair = isMap(section.value) ? pairOf(section.value, place.key) : null;
	if (pair === null) {
		const added = newKey(text, section, place.key, name);
		return added === null ? null : [added];
	}
	const { value } = pair;
	if (isSeq(value)) {
		if (!add) return removalFrom(text, pair, value, name);
		const addition = additionTo(text, value, name);
		return addition === null ? null : [addition];
	}
	const key = endOf(pair.key);
	const colon = key === null ? -1 : text.indexOf(":", key);
	if (colon < 0 || !(value === null || (isScalar(value) && (value.source ?? "") === ""))) return null;
	return [{ from: colon + 1, to: colon + 1, text: ` [${quoted(name)}]` }];
}

function namesIn(value: unknown, place: Place): readonly string[] {
	const section: unknown = typeof value === "object" && value !== null ? Reflect.get(value, place.section) : null;
	const list: unknown = typeof section === "object" && section !== null ? Reflect.get(section, place.key) : null;
	return Array.isArray(list) ? list.map(String) : [];
}

/** The document with that list in place of its own, everything else as it was. */
function withList(value: unknown, place: Place, names: readonly string[]): Record<string, unknown> {
	const all = typeof value === "object" && value !== null ? { ...value } : {};
	const section: unknown = Reflect.get(all, place.section);
	return { ...all, [place.section]: { ...(typeof section === "object" ? section : {}), [place.key]: names } };
}

/**
 * Adds names to a list of a YAML text or takes them out, and leaves every other byte as it is. What came of it is read
 * again: a text whose meaning changed elsewhere, or that is written in a way unknown here, is refused.
 */
export function editList(text: string, place: Place, names: readonly string[], add: boolean): ListEdit {
	const refusal = {
		ok: false,
		message: `${place.section}.${place.key} is written in a way that this command does not change. Change it by hand.`,
	} as const;
	let edited = text;
	let changed = 0;
	for (const name of new Set(names)) {
		const document = parseDocument(edited);
		if (document.errors.length > 0) return refusal;
		const before: unknown = document.toJS();
		const present = namesIn(before, place);
		if (present.includes(name) === add) continue;
		const splices = splicesFor(edited, place, name, add);
		if (splices === null) return refusal;
		for (const { from, to, text: put } of splices.toSorted((one, other) => other.from - one.from)) {
			edited = edited.slice(0, from) + put + edited.slice(to);
		}
		const after = parseDocument(edited);
		const wanted = add ? [...present, name] : present.filter((one) => one !== name);
		const is: unknown = after.errors.length > 0 ? null : after.toJS();
		if (!isDeepStrictEqual(withList(is, place, namesIn(is, place)), withList(before, place, wanted))) return refusal;
		changed++;
	}
	return { ok: true, text: edited, changed };
}
