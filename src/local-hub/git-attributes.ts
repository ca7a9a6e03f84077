/** What the Hub writes into a new repo. */
const TRACKED =
	"*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack *.npy *.npz *.onnx *.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors saved_model/**/* *.tar.* *.tar *.tflite *.tgz *.wasm *.xz *.zip *.zst *tfevents*".split(
		" ",
	);
export const GIT_ATTRIBUTES_FILE = ".gitattributes";

function lineOf(pattern: string): string {
	return `${pattern} filter=lfs diff=lfs merge=lfs -text\n`;
}

export const DEFAULT_GIT_ATTRIBUTES = TRACKED.map(lineOf).join("");

/** A pattern as git reads it in an attributes file: without a slash it is about names, with one about paths. */
function expressionOf(pattern: string): RegExp | null {
	const anchored = pattern.includes("/");
	let source = "";
	for (let at = 0; at < pattern.length; at++) {
		const character = pattern.charAt(at);
		const rest = pattern.slice(at);
		const bracket = /^\[[^\]]+(?::[a-z]+:)?\]+/.exec(rest)?.[0];
		if (rest.startsWith("**/")) {
			source += "(?:.*/)?";
			at += 2;
		} else if (rest.startsWith("**")) {
			source += ".*";
			at += 1;
		} else if (character === "*") source += "[^/]*";
		else if (character === "?") source += "[^/]";
		else if (rest.startsWith("[[:space:]]")) {
			source += "\\s";
			at += "[[:space:]]".length - 1;
		} else if (bracket !== undefined && !bracket.includes("[:")) {
			source += bracket.replace("[!", "[^");
			at += bracket.length - 1;
		} else source += character.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
	}
	try {
		return new RegExp(anchored ? `^${source.replace(/^\\\//, "")}$` : `(?:^|/)${source}$`);
	} catch {
		return null;
	}
}

/** Which paths a repo's attributes file gives to LFS. The last line that matches decides, as in git. */
export function lfsTracker(text: string): (path: string) => boolean {
	const rules = text.split(/\r?\n/).flatMap((line) => {
		const [pattern = "", ...attributes] = line.trim().split(/\s+/);
		if (pattern === "" || pattern.startsWith("#")) return [];
		const filter = attributes.findLast((one) => /^[-!]?filter(=|$)/.test(one));
		const expression = filter === undefined ? null : expressionOf(pattern);
		return expression === null ? [] : [{ expression, lfs: filter === "filter=lfs" }];
	});
	return (path) => rules.findLast(({ expression }) => expression.test(path))?.lfs ?? false;
}

/** The attributes file with a line for each LFS file that none of its own covers: the Hub adds them, so that clones work. */
export function withLfsPaths(text: string, paths: readonly string[]): string {
	const isTracked = lfsTracker(text);
	const missing = paths.filter((path) => !isTracked(path));
	if (missing.length === 0) return text;
	const start = text === "" || text.endsWith("\n") ? text : `${text}\n`;
	return start + missing.map((path) => lineOf(path.replaceAll(/\s/g, "[[:space:]]"))).join("");
}
