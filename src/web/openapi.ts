import { z } from "zod";
import { Container } from "../protocol/recipe-table.ts";
import { API_SCHEMAS, type ApiSchemaName } from "./api-schemas.ts";

type Parameter = {
	readonly name: string;
	readonly in: "query" | "path" | "header";
	readonly required: boolean;
	readonly description: string;
	readonly schema: object;
};

const CURSOR: Parameter = query("cursor", "What the page before gave as `nextCursor`.");
const CONTAINER: Parameter = query("container", "One container's files.", {
	enum: Container.options,
});
const BITS: Parameter = query("bits", "Bits of a weight.", { type: "integer", minimum: 1, maximum: 16 });
const SORT: Parameter = query("sort", "What comes first.", { enum: ["newest", "kl", "size"], default: "newest" });

function query(name: string, description: string, schema: object = {}): Parameter {
	return { name, in: "query", required: false, description, schema: { type: "string", ...schema } };
}

function path(name: string, description: string, schema: object = {}): Parameter {
	return { name, in: "path", required: true, description, schema: { type: "string", ...schema } };
}

function reference(name: ApiSchemaName): object {
	return { $ref: `#/components/schemas/${name}` };
}

function json(description: string, name: ApiSchemaName): object {
	return { description, content: { "application/json": { schema: reference(name) } } };
}

const MISSING = json("It is not there, or not for everybody.", "Fault");

type Operation = {
	readonly summary: string;
	readonly parameters?: readonly Parameter[];
	readonly responses: Readonly<Record<string, object>>;
};

/** Filters that make no sense count as not given: they are no fault. */
const OPERATIONS: Readonly<Record<string, Operation>> = {
	"/": {
		summary: "Models that something is published of.",
		parameters: [
			query("q", "Words that all have to be there, other names for the same (`4bit`, `ollama`), or an address."),
			CONTAINER,
			BITS,
			query("family", "A family, as the facets name it."),
			query("license", "A licence, as the facets name it."),
			query("parameters", "A class of sizes, as the page offers them."),
			query("size", "The most that the smallest file may take, such as `4GB`."),
			query("fits", "A memory or a device that one of the files has to run in with a context of 8k, such as `8 GB`."),
			query("since", "How long ago at most something was published, as the page offers it."),
			SORT,
			CURSOR,
		],
		responses: { "200": json("A page of models.", "ModelList") },
	},
	"/variants": {
		summary: "Everything published, in one list.",
		parameters: [query("q", "Part of the source's or the published repo's name."), CONTAINER, BITS, SORT, CURSOR],
		responses: { "200": json("A page of variants.", "VariantList") },
	},
	"/v/{id}": {
		summary: "One variant with its manifest: figures by text and layer, hashes, provenance.",
		parameters: [path("id", "The variant's number.", { format: "uuid" })],
		responses: { "200": json("The variant.", "VariantPage"), "404": MISSING },
	},
	"/m/{owner}/{name}": {
		summary: "One model: which file fits, what was made of it, and its jobs.",
		parameters: [
			path("owner", "A user or organisation on the Hub."),
			path("name", "The model's name there."),
			query("fits", "A memory or a device, such as `8 GB` or `RTX 4090`."),
			query("context", "Tokens, such as `8k`."),
			CONTAINER,
			query("cache", "How keys and values are kept.", { enum: ["f16", "q8_0", "q4_0"], default: "f16" }),
		],
		responses: { "200": json("The model.", "ModelPage"), "404": MISSING },
	},
	"/jobs": {
		summary: "Jobs, the newest first.",
		parameters: [CURSOR],
		responses: { "200": json("A page of jobs.", "JobList") },
	},
	"/jobs/{id}": {
		summary: "One job with what it makes and how far it is.",
		parameters: [path("id", "The job's number.", { format: "uuid" })],
		responses: { "200": json("The job.", "JobPage"), "404": MISSING },
	},
	"/jobs/{id}/log": {
		summary: "What happened to a job, line by line.",
		parameters: [
			path("id", "The job's number.", { format: "uuid" }),
			query("q", "Part of a line, as it stands."),
			query("after", "The number of the last line that is known.", { type: "integer" }),
			query("layers", "`1`: with the evidence of single layers.", { enum: ["1"] }),
		],
		responses: { "200": json("Up to 200 lines.", "JobLog"), "404": MISSING },
	},
	"/jobs/{id}/events": {
		summary: "The job's events as they happen, as server-sent events; `end` is the last one.",
		parameters: [
			path("id", "The job's number.", { format: "uuid" }),
			query("after", "The number of the last event that is known, as `Last-Event-ID`.", { type: "integer" }),
			query("layers", "`1`: with the evidence of single layers.", { enum: ["1"] }),
			query("view", "`parts`: the changed parts of the page, as markup.", { enum: ["parts"] }),
		],
		responses: {
			"200": {
				description: "`state` and `runner` events, each with its number as `id`.",
				content: { "text/event-stream": { schema: { type: "string" } } },
			},
			"204": { description: "The job has ended, and everything of it is known." },
			"400": json("`Last-Event-ID` is no number of an event.", "Fault"),
			"404": MISSING,
			"503": json("Too many follow jobs just now.", "Fault"),
		},
	},
	"/deliveries": {
		summary: "What webhooks reported, and what became of it.",
		parameters: [CURSOR],
		responses: { "200": json("A page of deliveries.", "DeliveryList") },
	},
	"/my": {
		summary: "The models of who is signed in, and of their organisations, private ones too.",
		parameters: [CURSOR],
		responses: { "200": json("A page of models.", "MyModels"), "404": json("Nobody is signed in.", "Fault") },
	},
	"/operator": {
		summary: "What whoever runs the bot looks after; for them alone.",
		parameters: [CURSOR],
		responses: { "200": json("Queue, budget, what is kept and what came in.", "Operator"), "404": MISSING },
	},
	"/help": { summary: "What the bot understands in comments.", responses: { "200": json("The commands.", "Help") } },
	"/about": {
		summary: "Who runs this bot, and how it measures.",
		responses: { "200": json("The facts.", "AboutPage") },
	},
	"/healthz": { summary: "Whether the process lives.", responses: { "200": json("It does.", "Alive") } },
	"/readyz": {
		summary: "Whether database, queue and Hub answer, and a delivery could be stored.",
		responses: { "200": json("All do.", "Readiness"), "503": json("One does not.", "Readiness") },
	},
};

/** The schemas with references to one another, each open: fields may be added without a new version. */
function componentSchemas(): Readonly<Record<string, object>> {
	const registry = z.registry<{ readonly id: string }>();
	for (const [id, schema] of Object.entries(API_SCHEMAS)) registry.add(schema, { id });
	const { schemas } = z.toJSONSchema(registry, { io: "input", uri: (id) => `#/components/schemas/${id}` });
	return Object.fromEntries(
		Object.entries(schemas).map(([id, { $schema: _draft, $id: _address, ...schema }]) => [id, schema]),
	);
}

/** The description of the JSON that every page answers with when it is asked for it. */
export function openApiDocument(options: { readonly botName: string; readonly version: string }): object {
	return {
		openapi: "3.1.0",
		info: {
			title: options.botName,
			version: options.version,
			description:
				"What the pages show, as JSON: send `Accept: application/json` to the same address. All of it can be read without an account; who is signed in on the pages also sees the private models that the Hub lets them read. Whoever runs the bot sends `Authorization: Bearer` with its operator's token. What changes something is a form of the pages, and takes the token that they carry. Answers carry an `ETag`; `If-None-Match` saves what has not changed. Filters that make no sense count as not given. Fields may be added.",
		},
		paths: Object.fromEntries(Object.entries(OPERATIONS).map(([address, get]) => [address, { get }])),
		components: { schemas: componentSchemas() },
	};
}
