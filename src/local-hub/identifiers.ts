import { createHash, randomBytes } from "node:crypto";
import { HubError } from "./hub-error.ts";

const NAME = /^(?!-)(?!.*--)(?!.*\.\.)[A-Za-z0-9._-]{1,96}$/;
const RESERVED_NAMESPACES: ReadonlySet<string> = new Set([
	"api",
	"datasets",
	"spaces",
	"models",
	"collections",
	"settings",
	"avatars",
	"lfs",
	"oauth",
	"healthz",
]);
const LONGEST_PATH = 1024;
const LONGEST_SEGMENT = 255;

/** A random 24-hex id, as the Hub gives to repos, webhooks and comments. */
export function newId(): string {
	return randomBytes(12).toString("hex");
}

/** The id of an account: a function of its name, so that seeded accounts keep theirs over restarts. */
export function accountId(name: string): string {
	return createHash("sha256").update(`account:${name}`).digest("hex").slice(0, 24);
}

export function isRepoNamePart(name: string): boolean {
	return NAME.test(name) && !name.endsWith(".git") && !name.endsWith(".ipynb") && !/^[.-]|[.-]$/.test(name);
}

export function isNamespace(name: string): boolean {
	return isRepoNamePart(name) && !RESERVED_NAMESPACES.has(name);
}

/** A path inside a repo, or a 400. Refused: absolute, empty or dotted segments, backslashes, control characters, `.git`. */
export function checkedPath(path: string): string {
	const refuse = (why: string): never => {
		throw new HubError(400, `Invalid path in repo: ${why}.`);
	};
	if (path.length === 0) refuse("it is empty");
	if (Buffer.byteLength(path) > LONGEST_PATH) refuse(`it is longer than ${LONGEST_PATH} bytes`);
	if (/[\u0000-\u001f\u007f\\]/.test(path)) refuse("it holds a control character or a backslash");
	for (const segment of path.split("/")) {
		if (segment === "") refuse("it starts or ends with a slash or holds an empty segment");
		if (segment === "." || segment === "..") refuse("it holds a . or .. segment");
		if (segment.toLowerCase() === ".git") refuse("it holds a .git segment");
		if (Buffer.byteLength(segment) > LONGEST_SEGMENT) refuse(`a segment is longer than ${LONGEST_SEGMENT} bytes`);
	}
	return path;
}

/** The name of a branch or tag, or a 400. The rules of git-check-ref-format that matter in a URL and a JSON key. */
export function checkedRefName(name: string): string {
	const bad =
		name.length === 0 ||
		name.length > 200 ||
		!/^[A-Za-z0-9][A-Za-z0-9._/-]*$/.test(name) ||
		/\.\.|\/\/|\.lock($|\/)|\/$|\.$/.test(name) ||
		/^[0-9a-f]{40}$/.test(name) ||
		name === "HEAD" ||
		name.startsWith("refs/");
	if (bad) throw new HubError(400, `Invalid reference name: ${JSON.stringify(name.slice(0, 80))}.`);
	return name;
}
