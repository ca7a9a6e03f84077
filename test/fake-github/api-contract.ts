import { readFileSync } from "node:fs";
import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js";
import { z } from "zod";

const Content = z.object({ "application/json": z.object({ schema: z.record(z.string(), z.unknown()) }) });
const Operation = z.object({
	operationId: z.string(),
	parameters: z.array(
		z.object({
			name: z.string(),
			in: z.enum(["path", "query"]),
			required: z.boolean(),
			schema: z.record(z.string(), z.unknown()),
		}),
	),
	requestBody: z.object({ required: z.boolean(), content: Content }).optional(),
	responses: z.record(z.string(), z.object({ content: Content.optional() })),
});
const Description = z.object({
	paths: z.record(z.string(), z.record(z.string(), Operation)),
	components: z.record(z.string(), z.unknown()),
});

export type MatchedOperation = {
	readonly id: string;
	readonly path: Readonly<Record<string, string>>;
	/** What is wrong with the request, by GitHub's description; `null` when nothing is. */
	readonly problem: string | null;
	/** What is wrong with an answer. */
	problemOf(status: number, body: unknown): string | null;
};

/** The operations of `test/contract/github.openapi.json`, to hold requests and answers against. */
export function loadContract(): (method: string, url: URL, body: unknown) => MatchedOperation | null {
	const text = readFileSync(new URL("../contract/github.openapi.json", import.meta.url), "utf8");
	const { paths, components } = Description.parse(JSON.parse(text));
	const ajv = new Ajv2020({ strict: false, coerceTypes: false });
	ajv.addFormat("date-time", (value) => !Number.isNaN(Date.parse(value)));
	ajv.addFormat("uri", (value) => URL.canParse(value));
	const compile = (schema: Readonly<Record<string, unknown>>): ValidateFunction =>
		ajv.compile({ ...schema, components });
	const operations = Object.entries(paths).flatMap(([template, methods]) =>
		Object.entries(methods).map(([method, operation]) => ({
			method: method.toUpperCase(),
			pattern: new RegExp(`^${template.replaceAll(/\{(\w+)\}/g, "(?<$1>[^/]+)")}$`),
			operation,
			body:
				operation.requestBody === undefined ? null : compile(operation.requestBody.content["application/json"].schema),
			query: operation.parameters.map((parameter) => ({ ...parameter, validate: compile(parameter.schema) })),
			answers: new Map(
				Object.entries(operation.responses).map(([status, response]) => [
					Number(status),
					response.content === undefined ? null : compile(response.content["application/json"].schema),
				]),
			),
		})),
	);

	return (method, url, body) => {
		for (const one of operations) {
			const groups = one.pattern.exec(url.pathname)?.groups;
			if (groups === undefined || one.method !== method) continue;
			const path = { ...groups };
			const problems: string[] = [];
			for (const parameter of one.query) {
				const text =
					parameter.in === "path" ? path[parameter.name] : (url.searchParams.get(parameter.name) ?? undefined);
				if (text === undefined) continue;
				const value = parameter.schema["type"] === "integer" ? Number(text) : text;
				if (!parameter.validate(value))
					problems.push(`${parameter.name}: ${ajv.errorsText(parameter.validate.errors)}`);
			}
			for (const name of url.searchParams.keys()) {
				if (!one.query.some((parameter) => parameter.in === "query" && parameter.name === name)) {
					problems.push(`there is no parameter ${name}`);
				}
			}
			if (one.body !== null && (body !== undefined || one.operation.requestBody?.required === true)) {
				if (!one.body(body ?? null)) problems.push(ajv.errorsText(one.body.errors));
			}
			return {
				id: one.operation.operationId,
				path,
				problem: problems.length === 0 ? null : problems.join("; "),
				problemOf(status, answer) {
					const validate = one.answers.get(status);
					if (validate === undefined) return `${one.operation.operationId} has no answer ${status}`;
					if (validate === null) return answer === null ? null : "the answer has no body";
					return validate(answer) ? null : ajv.errorsText(validate.errors);
				},
			};
		}
		return null;
	};
}
