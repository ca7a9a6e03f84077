import { type RawBuilder, sql } from "kysely";

/** PostgreSQL stores neither NUL nor half a surrogate pair; texts from outside may hold both. */
export function storableText(text: string): string {
	return text.replaceAll("\u0000", "\ufffd").toWellFormed();
}

function storableValue(value: unknown): unknown {
	if (typeof value === "string") return storableText(value);
	if (Array.isArray(value)) return value.map(storableValue);
	if (typeof value === "object" && value !== null && !(value instanceof Date)) {
		return Object.fromEntries(Object.entries(value).map(([key, inner]) => [storableText(key), storableValue(inner)]));
	}
	return value;
}

/** A jsonb parameter. Both drivers take text here; an array given as such would become a PostgreSQL array. */
export function storableJson(value: unknown): RawBuilder<unknown> {
	return sql`${JSON.stringify(storableValue(value))}::text::jsonb`;
}

/** `null` as SQL's, not as JSON's. */
export function storableJsonOrNull(value: unknown): RawBuilder<unknown> {
	return value === null || value === undefined ? sql`null` : storableJson(value);
}
