import { z } from "zod";
import type { HubAccess } from "./hub-access.ts";
import { requestJson } from "./request-json.ts";

const Messages = z.array(z.object({ message: z.string() })).default([]);

/** What the Hub thinks of a model card's front matter. `errors` is empty when it would accept it. */
export async function validateYaml(
	params: HubAccess & { readonly content: string },
): Promise<{ errors: string[]; warnings: string[] }> {
	const { content, ...access } = params;
	const answer = await requestJson({
		...access,
		method: "POST",
		path: "/api/validate-yaml",
		body: { content, repoType: "model" },
		schema: z.object({ errors: Messages, warnings: Messages }),
		repeatable: true,
		// A card that is not accepted: the errors come with a 400.
		answerStatuses: [400],
	});
	return {
		errors: answer.errors.map((entry) => entry.message),
		warnings: answer.warnings.map((entry) => entry.message),
	};
}
