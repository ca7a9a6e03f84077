import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { COMMANDS, QUANTIZE_OPTIONS } from "../src/commands/command-table.ts";
import { ConfigurationFile } from "../src/config/schema.ts";
import { renderTransitions } from "../src/jobs/transitions.ts";

/** The documents' tables are written from what the program itself reads, between `<!-- NAME:begin -->` and its end. */

const Schema = z.looseObject({
	description: z.string().optional(),
	default: z.unknown().optional(),
	enum: z.array(z.string()).optional(),
	get properties() {
		return z.record(z.string(), Schema).optional();
	},
	get items() {
		return Schema.optional();
	},
	get anyOf() {
		return z.array(Schema).optional();
	},
});
type Schema = z.infer<typeof Schema>;

function cell(text: string): string {
	return text.replaceAll("|", "\\|");
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
	return [head, head.map(() => "---"), ...rows].map((row) => `| ${row.join(" | ")} |`).join("\n");
}

/** The fields of an object, or of the objects that a list or a nullable setting holds. */
function fieldsOf(
	schema: Schema,
): { readonly suffix: string; readonly fields: Readonly<Record<string, Schema>> } | null {
	if (schema.properties !== undefined) return { suffix: "", fields: schema.properties };
	if (schema.items?.properties !== undefined) return { suffix: "[]", fields: schema.items.properties };
	const some = schema.anyOf?.find((one) => one.properties !== undefined);
	return some?.properties === undefined ? null : { suffix: "", fields: some.properties };
}

const DEFAULTS: unknown = ConfigurationFile.parse({});

/** What a setting is when the file does not say; `undefined` within lists. */
function defaultOf(path: string): unknown {
	return path.split(".").reduce<unknown>((value, key) => z.looseObject({}).safeParse(value).data?.[key], DEFAULTS);
}

function settingRows(path: string, schema: Schema): string[][] {
	const inner = fieldsOf(schema);
	const rows: string[][] = [];
	if (inner === null || schema.description !== undefined) {
		const values = schema.enum === undefined ? "" : `One of ${schema.enum.map((value) => `\`${value}\``).join(", ")}. `;
		const found = defaultOf(path);
		const known = found === undefined ? schema.default : found;
		const usual = known === undefined || inner?.suffix === "" ? "" : `\`${JSON.stringify(known)}\``;
		rows.push([`\`${path}\``, cell(usual), cell(`${values}${schema.description ?? ""}`)]);
	}
	for (const [name, field] of Object.entries(inner?.fields ?? {})) {
		rows.push(...settingRows(`${path}${inner?.suffix ?? ""}.${name}`, field));
	}
	return rows;
}

function settingTables(): string {
	const json = z.toJSONSchema(ConfigurationFile, { target: "draft-2020-12", io: "input", unrepresentable: "any" });
	const sections = Object.entries(Schema.parse(json).properties ?? {});
	return sections
		.map(
			([name, section]) => `## ${name}\n\n${table(["setting", "default", "what it is"], settingRows(name, section))}`,
		)
		.join("\n\n");
}

function commandTables(): string {
	return COMMANDS.map(({ name, usage, aliases, summary, whoCanUse, examples }) => {
		const others = aliases.length === 0 ? "" : ` Also: ${aliases.map((alias) => `\`${alias}\``).join(", ")}.`;
		const rows = examples.map(({ text, meaning }) => [`\`@yaqa-bot ${text}\``, cell(meaning)]);
		return `### ${name}\n\n\`@yaqa-bot ${usage}\`\n\n${summary}${others} Who may use it: ${whoCanUse}\n\n${table(["you write", "you get"], rows)}`;
	}).join("\n\n");
}

function optionTable(): string {
	return table(
		["option", "what it says"],
		QUANTIZE_OPTIONS.map(({ key, value, meaning }) => [`\`${key}${value === "" ? "" : `=${value}`}\``, cell(meaning)]),
	);
}

const TABLES = {
	settings: settingTables,
	commands: commandTables,
	options: optionTable,
	states: () => `\`\`\`mermaid\n${renderTransitions()}\n\`\`\``,
} as const satisfies Readonly<Record<string, () => string>>;

/** Which documents hold which of them. */
export const DOCUMENTS: Readonly<Record<string, readonly (keyof typeof TABLES)[]>> = {
	"docs/configuration.md": ["settings"],
	"docs/comments.md": ["commands", "options"],
	"docs/how-it-works.md": ["states"],
};

/** A document with its tables as they have to be. */
export function withTables(path: string, text: string): string {
	let written = text;
	for (const name of DOCUMENTS[path] ?? []) {
		const [begin, end] = [`<!-- ${name}:begin -->`, `<!-- ${name}:end -->`];
		const [from, to] = [written.indexOf(begin), written.indexOf(end)];
		if (from < 0 || to < from) throw new Error(`${path} has no ${begin} … ${end}.`);
		written = `${written.slice(0, from + begin.length)}\n${TABLES[name]()}\n${written.slice(to)}`;
	}
	return written;
}

if (import.meta.main) {
	const root = fileURLToPath(new URL("..", import.meta.url));
	for (const path of Object.keys(DOCUMENTS)) {
		writeFileSync(join(root, path), withTables(path, readFileSync(join(root, path), "utf8")));
		process.stdout.write(`${path}\n`);
	}
}
