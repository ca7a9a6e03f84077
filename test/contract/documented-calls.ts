import { readFileSync } from "node:fs";
import { join } from "node:path";

export type DocumentedCall = {
	readonly method: string;
	/** With words in capitals for what differs. */
	readonly path: string;
	/** Matches such a call's path, without query. */
	readonly pattern: RegExp;
};

const DOCUMENT = join(import.meta.dirname, "../../docs/calls.md");
const SHORT: Readonly<Record<string, string>> = { M: "/api/models/OWNER/MODEL", R: "/repos/OWNER/REPO" };
/** These hold slashes. */
const WHOLE_PATHS: ReadonlySet<string> = new Set(["FILE"]);

function patternOf(path: string): RegExp {
	const parts = path
		.split(/([A-Z]{2,})/)
		.map((part) =>
			part === "CAS" || part === ""
				? ""
				: /^[A-Z]{2,}$/.test(part)
					? WHOLE_PATHS.has(part) && path.includes("/resolve/")
						? ".+"
						: "[^/]+?"
					: part.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&"),
		);
	return new RegExp(`^${parts.join("")}$`);
}

/** The rows of docs/calls.md below a heading. */
export function documentedCalls(heading: "The Hub" | "GitHub"): readonly DocumentedCall[] {
	const text = readFileSync(DOCUMENT, "utf8").split(`\n## ${heading}\n`)[1]?.split("\n## ")[0] ?? "";
	return [...text.matchAll(/^\| `([A-Z]+) ([^`]+)` \|/gm)].map(([, method = "", shown = ""]) => {
		const [first = "", ...rest] = shown.split("/");
		const path = first === "" || first === "CAS" ? shown : [SHORT[first] ?? first, ...rest].join("/");
		return { method, path, pattern: patternOf(path) };
	});
}
