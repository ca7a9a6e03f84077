import type { z } from "zod";
import { parseJson } from "../parse-json.ts";
import type { HubAccess } from "./hub-access.ts";
import { REPEATABLE_HEADER } from "./hub-fetch.ts";
import { HubRequestError } from "./hub-request-error.ts";

/** One call of the Hub's JSON API whose answer is checked by `schema`. Throws `HubRequestError` on a refusal. */
export async function requestJson<Schema extends z.ZodType>(
	params: HubAccess & {
		readonly method?: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
		/** Path and query, starting with a slash. */
		readonly path: string;
		readonly body?: unknown;
		readonly schema: Schema;
		/** Whether a POST may be sent again after an unclear failure. */
		readonly repeatable?: boolean;
		/** Refusals whose body `schema` describes too; they are answers, not failures. */
		readonly answerStatuses?: readonly number[];
		readonly signal?: AbortSignal;
	},
): Promise<z.infer<Schema>> {
	const { hubUrl, accessToken, method = "GET", path, body, schema } = params;
	const send = params.fetch ?? fetch;
	const response = await send(`${hubUrl}${path}`, {
		method,
		headers: {
			accept: "application/json",
			...(accessToken === undefined ? {} : { authorization: `Bearer ${accessToken}` }),
			...(body === undefined ? {} : { "content-type": "application/json" }),
			...(params.repeatable === true ? { [REPEATABLE_HEADER]: "1" } : {}),
		},
		...(body === undefined ? {} : { body: JSON.stringify(body) }),
		...(params.signal === undefined ? {} : { signal: params.signal }),
	});
	const text = await response.text();
	if (!response.ok && !(params.answerStatuses ?? []).includes(response.status)) {
		const said = response.headers.get("x-error-message") ?? errorField(text) ?? response.statusText;
		throw new HubRequestError(`The Hub answered ${response.status} to ${method} ${path}: ${said.slice(0, 500)}`, {
			status: response.status,
			code: response.headers.get("x-error-code"),
		});
	}
	// Some calls answer 200 with an empty body.
	const parsed = schema.safeParse(text === "" ? {} : parseJson(text));
	if (!parsed.success) {
		throw new HubRequestError(
			`The Hub's answer to ${method} ${path} has an unexpected form: ${parsed.error.issues[0]?.message ?? "invalid"} at "${parsed.error.issues[0]?.path.join(".") ?? ""}"`,
			{ status: response.status, code: null },
		);
	}
	return parsed.data;
}

function errorField(text: string): string | null {
	const json = parseJson(text);
	if (typeof json !== "object" || json === null || !("error" in json)) return null;
	return typeof json.error === "string" ? json.error : null;
}
