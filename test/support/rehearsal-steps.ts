import { readFileSync } from "node:fs";
import { join } from "node:path";

const DOCUMENT = join(import.meta.dirname, "../../docs/operating.md");

export type RehearsalStep = { readonly title: string; readonly commands: string };

/** The shell blocks of the rehearsal in docs/operating.md as they stand, each under the words in bold before it. */
export function rehearsalSteps(): readonly RehearsalStep[] {
	const text = readFileSync(DOCUMENT, "utf8");
	const section = /^## A rehearsal\n([\s\S]*?)^## /m.exec(text)?.[1];
	if (section === undefined) throw new Error(`There is no rehearsal in ${DOCUMENT}.`);
	let title = "People";
	const steps: RehearsalStep[] = [];
	for (const [, bold, commands] of section.matchAll(/^\*\*([^*\n]+)\*\*|^```sh\n([\s\S]*?)^```$/gm)) {
		if (bold !== undefined) title = bold.replace(/[.,]$/, "");
		if (commands !== undefined) steps.push({ title, commands });
	}
	return steps;
}
