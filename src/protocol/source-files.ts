import sourceFiles from "../../config/source-files.json" with { type: "json" };
import type { Container } from "./recipe-table.ts";

/** The files of a source that are looked at, by what they are for. The runner reads the same table. */
export type SourceFileKind = keyof typeof sourceFiles.files;

/** What makes a repo an adapter's. */
export const ADAPTER_FILES: { readonly configuration: string; readonly weights: string } = sourceFiles.adapter;

/** A copied file may have this many bytes. */
export const MAXIMUM_COPIED_BYTES = sourceFiles.maximumCopiedBytes;

/** `*` stands for one name's letters, digits, dots, minuses and underscores; never for a folder. */
function matcherOf(patterns: readonly string[]): RegExp {
	const alternatives = patterns.map((pattern) =>
		pattern.replaceAll(/[.+?^${}()|[\]\\]/g, "\\$&").replaceAll("*", "[A-Za-z0-9._-]+"),
	);
	return new RegExp(`^(?:${alternatives.join("|")})$`);
}

const KINDS = {
	configuration: matcherOf(sourceFiles.files.configuration),
	weights: matcherOf(sourceFiles.files.weights),
	tokenizer: matcherOf(sourceFiles.files.tokenizer),
	generation: matcherOf(sourceFiles.files.generation),
	processor: matcherOf(sourceFiles.files.processor),
	licence: matcherOf(sourceFiles.files.licence),
	card: matcherOf(sourceFiles.files.card),
} satisfies Readonly<Record<SourceFileKind, RegExp>>;

function writtenMatcher(container: Container): RegExp {
	return matcherOf(sourceFiles.containers[container].written);
}

const WRITTEN: Readonly<Record<Container, RegExp>> = {
	gguf: writtenMatcher("gguf"),
	onnx: writtenMatcher("onnx"),
	"compressed-tensors": writtenMatcher("compressed-tensors"),
	gptq: writtenMatcher("gptq"),
	mlx: writtenMatcher("mlx"),
};

const PICKLES: readonly string[] = sourceFiles.pickleSuffixes;

/** Whether the file at `path` of a source is of one of `kinds`. */
export function isOfKind(path: string, ...kinds: readonly SourceFileKind[]): boolean {
	return kinds.some((kind) => KINDS[kind].test(path));
}

/** Whether a variant in `container` takes the file along as it stands. */
export function isCopied(container: Container, path: string): boolean {
	const kinds: readonly string[] = sourceFiles.containers[container].copied;
	return Object.entries(KINDS).some(([kind, matcher]) => kinds.includes(kind) && matcher.test(path));
}

/** What a variant in `container` may consist of. No scripts, no pickles, nothing that a loader would run. */
export function isPublishable(container: Container, path: string): boolean {
	return WRITTEN[container].test(path) || isCopied(container, path);
}

/** Whether opening the file would run code from it. */
export function isPickle(path: string): boolean {
	return PICKLES.some((suffix) => path.toLowerCase().endsWith(suffix));
}
