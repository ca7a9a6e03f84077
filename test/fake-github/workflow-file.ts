import { readFileSync } from "node:fs";
import { parse } from "yaml";
import { z } from "zod";

const text = z.union([z.string(), z.number()]).transform(String);

/** As much of the workflow language as `workflows/quantize.yml` uses. */
const WorkflowFile = z.strictObject({
	name: z.string(),
	"run-name": z.string(),
	on: z.strictObject({
		workflow_dispatch: z.strictObject({
			inputs: z.record(
				z.string(),
				z.strictObject({ description: z.string(), required: z.boolean(), type: z.literal("string") }),
			),
		}),
	}),
	permissions: z.record(z.string(), z.string()),
	concurrency: z.strictObject({ group: z.string(), "cancel-in-progress": z.boolean() }),
	jobs: z.record(
		z.string(),
		z.strictObject({
			name: z.string(),
			"runs-on": z.array(z.string()),
			environment: z.string(),
			"timeout-minutes": z.int(),
			steps: z.array(
				z.strictObject({
					name: z.string(),
					uses: z.string().optional(),
					shell: z.literal("bash").optional(),
					env: z.record(z.string(), text).optional(),
					run: z.string().optional(),
				}),
			),
		}),
	),
});
type WorkflowFile = z.infer<typeof WorkflowFile>;

export function readWorkflow(path: string): WorkflowFile {
	return WorkflowFile.parse(parse(readFileSync(path, "utf8")));
}

type ExpressionContext = Readonly<Record<"inputs" | "vars" | "secrets", Readonly<Record<string, string>>>>;

/** Fills in `${{ inputs.x }}`, `${{ vars.X }}` and `${{ secrets.X }}`; what is not set is empty, as on GitHub. */
export function fillIn(template: string, context: ExpressionContext): string {
	return template.replaceAll(/\$\{\{\s*(.*?)\s*\}\}/g, (_, expression: string) => {
		const [, scope = "", name = ""] = /^(inputs|vars|secrets)\.(\w+)$/.exec(expression) ?? [];
		if (scope !== "inputs" && scope !== "vars" && scope !== "secrets")
			throw new Error(`Cannot evaluate ${expression}.`);
		return context[scope][name] ?? "";
	});
}
