import assert from "node:assert/strict";
import type { ValidateFunction } from "ajv";
import { Ajv2020 } from "ajv/dist/2020.js";
import { z } from "zod";

const Operation = z.object({ get: z.object({ responses: z.record(z.string(), z.unknown()) }) });
const Document = z.looseObject({ openapi: z.string(), paths: z.record(z.string(), Operation) });

/** The document with every object closed, so that a field that it does not tell of counts as a fault. */
function closed(value: unknown): unknown {
	if (Array.isArray(value)) return value.map(closed);
	if (typeof value !== "object" || value === null) return value;
	const copy = Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, closed(inner)]));
	return "properties" in copy && copy["additionalProperties"] === undefined
		? { ...copy, additionalProperties: false }
		: copy;
}

function pointer(...parts: readonly string[]): string {
	return parts.map((part) => `/${encodeURIComponent(part.replaceAll("~", "~0").replaceAll("/", "~1"))}`).join("");
}

export type ApiAnswers = {
	readonly paths: readonly string[];
	/** Of a path and a status: what is wrong with the body; empty when it is as described. */
	readonly faults: (path: string, status: number, body: unknown) => readonly string[];
	/** Asks, and holds the answer against the description of the path. */
	readonly check: (
		path: string,
		address: string,
		status?: number,
		headers?: Readonly<Record<string, string>>,
	) => Promise<unknown>;
};

/** Reads the site's own description of its answers. */
export async function readApiDescription(siteUrl: string): Promise<ApiAnswers> {
	const response = await fetch(`${siteUrl}/openapi.json`);
	assert.equal(response.status, 200);
	const document: unknown = await response.json();
	const { paths } = Document.parse(document);
	const ajv = new Ajv2020({ strict: false, allErrors: true });
	ajv.addFormat("date-time", (text) => !Number.isNaN(Date.parse(text)));
	ajv.addFormat("uuid", (text) => z.uuid().safeParse(text).success);
	const whole = closed(document);
	assert.ok(typeof whole === "object" && whole !== null);
	ajv.addSchema(whole, "api");
	const validators = new Map<string, ValidateFunction>();

	function faults(path: string, status: number, body: unknown): readonly string[] {
		const described = paths[path]?.get.responses[String(status)];
		if (described === undefined) return [`${path} has no answer ${status}`];
		const place = pointer("paths", path, "get", "responses", String(status), "content", "application/json", "schema");
		const validate = validators.get(place) ?? ajv.compile({ $ref: `api#${place}` });
		validators.set(place, validate);
		if (validate(body)) return [];
		return (validate.errors ?? []).map(
			(error) => `${error.instancePath} ${error.message} ${JSON.stringify(error.params)}`,
		);
	}

	return {
		paths: Object.keys(paths),
		faults,
		check: async (path, address, status = 200, headers = {}) => {
			const answer = await fetch(`${siteUrl}${address}`, { headers: { Accept: "application/json", ...headers } });
			assert.equal(answer.status, status, address);
			const body: unknown = await answer.json();
			assert.deepEqual(faults(path, status, body), [], address);
			return body;
		},
	};
}
