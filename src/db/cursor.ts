import { z } from "zod";

/** Where a page ended: the sorted value and the id of its last row. Opaque to readers. */
const Cursor = z.tuple([z.union([z.string().max(64), z.number()]), z.uuid()]);
export type Cursor = z.infer<typeof Cursor>;

function encodeCursor(cursor: Cursor): string {
	return Buffer.from(JSON.stringify(cursor)).toString("base64url");
}

/** `null` for what is no cursor of ours: the first page is shown then. */
export function decodeCursor(text: string | null | undefined): Cursor | null {
	if (text === null || text === undefined || text.length > 400) return null;
	try {
		const parsed = Cursor.safeParse(JSON.parse(Buffer.from(text, "base64url").toString("utf8")));
		return parsed.success ? parsed.data : null;
	} catch {
		return null;
	}
}

/** Whether it is a time that the database takes: cursors come from anybody. */
export function isStorable(at: Date): boolean {
	const year = at.getUTCFullYear();
	return !Number.isNaN(at.getTime()) && year >= 1970 && year < 10_000;
}

/** The cursor's value as a time, or `null` when it is none. */
export function cursorTime(cursor: Cursor | null): { readonly at: Date; readonly id: string } | null {
	if (cursor === null) return null;
	const at = new Date(cursor[0]);
	return isStorable(at) ? { at, id: cursor[1] } : null;
}

export type Page<Item> = {
	readonly items: readonly Item[];
	/** Gives the next page; `null` on the last. */
	readonly next: string | null;
};

export function pageOf<Row, Item>(
	rows: readonly Row[],
	limit: number,
	toItem: (row: Row) => Item,
	toCursor: (row: Row) => Cursor,
): Page<Item> {
	const shown = rows.slice(0, limit);
	const last = shown.at(-1);
	return {
		items: shown.map(toItem),
		next: rows.length > limit && last !== undefined ? encodeCursor(toCursor(last)) : null,
	};
}

/** A page's size within bounds, whatever a query string asked for. */
export function pageLimit(limit: number | undefined, fallback = 24): number {
	if (limit === undefined || !Number.isInteger(limit)) return fallback;
	return Math.min(200, Math.max(1, limit));
}
