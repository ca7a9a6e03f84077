import { isImportance } from "../../protocol/importance-file.ts";
import type { Manifest } from "../../protocol/manifest.ts";
import { isOfOneCommit } from "../../protocol/one-commit.ts";
import type { Container } from "../../protocol/recipe-table.ts";
import { markdownCode, markdownText } from "../escape.ts";
import type { SourceCard } from "../source-card.ts";
import type { CardRequest } from "./card-request.ts";
import { engineNote } from "./engine-note.ts";
import { fidelity } from "./fidelity.ts";
import { fitTable } from "./fit-table.ts";
import { frontMatter } from "./front-matter.ts";
import { loadSnippets } from "./load-snippets.ts";
import { provenance } from "./provenance.ts";
import { published, recipeNameOf } from "./published-measurement.ts";
import { elsewhereTable, olderNote, summaryTable } from "./variant-tables.ts";

const CONTAINER_NAMES: Readonly<Record<Container, string>> = {
	gguf: "GGUF",
	onnx: "ONNX",
	"compressed-tensors": "compressed-tensors",
	gptq: "GPTQ",
	mlx: "MLX",
};

/** The whole README.md of a published repo. */
export function renderCard(request: CardRequest): string {
	const manifests = request.manifests.toSorted((one, other) => published(one).bytes - published(other).bytes);
	return `---\n${frontMatter(request)}---\n\n${body({ ...request, manifests })}\n`;
}

function body(request: CardRequest): string {
	const { repo, hubUrl, source, manifests, elsewhere, plotPath, newestSha } = request;
	const container = recipeNameOf(manifests[0]).container;
	const name = markdownText(source.repo.split("/")[1] ?? source.repo);
	const link = `[${markdownText(source.repo)}](${hubUrl}/${source.repo})`;
	const sections = [
		`# ${name} · ${CONTAINER_NAMES[container]} · YAQA${isOfOneCommit(repo) ? ` · at ${manifests[0]?.source.revision.slice(0, 8)}` : ""}`,
		`${CONTAINER_NAMES[container]} files of ${link}, rounded by yaqa-bot so that the model's *output distribution* stays as close to the original's as the format allows. Every figure here was measured on these very files; they were staged on the Hub, downloaded back and verified before anybody could see them.`,
		...mergedNote(request),
		...(isOfOneCommit(repo) ? [commitNote(request)] : olderNote(manifests, newestSha, `${hubUrl}/${source.repo}`)),
		summaryTable(manifests, isOfOneCommit(repo) ? null : newestSha),
		...engineNote(manifests),
		`![File size against KL to the original, for each quantizer](${plotPath})`,
		...manifests.map((manifest) => fidelity(manifest)),
		...fitTable(manifests, CHOOSE),
		"## How to load it",
		...howToLoad({ repo, container, manifests, hubUrl }),
		...(elsewhere.length === 0 ? [] : ["## Other formats of the same model", elsewhereTable(hubUrl, elsewhere)]),
		"## How it was made",
		manifests.some(isTuned) ? `${METHOD} ${TUNING}` : METHOD,
		...importanceNote(manifests),
		...manifests.map((manifest) => provenance(manifest, hubUrl)),
		terms(source),
	];
	return sections.join("\n\n");
}

const CHOOSE =
	"Of the files that fit, take the one with the lowest KL: it predicts most like the original. Asked in a discussion of the original, `which fits 8 GB at 8k` is answered with that file.";

const METHOD =
	"YAQA (arXiv 2505.22988) rounds every linear layer under a Kronecker-factored sketch of the curvature of the end-to-end KL divergence, instead of under that layer's own output error as GPTQ does. Beside it, plain rounding and one-sided GPTQ are computed for the *same container and the same bytes*; all are measured on a held-out selection split, and the best is published, whichever it is. The figures above come from a second, separate report split.";

const TUNING =
	"*Scales tuned* means: with the integer codes fixed, the scales that the container stores anyway were tuned on the calibration text against the original's own predictions.";

function isTuned(manifest: Manifest): boolean {
	return manifest.evaluation.measured.some((measured) => measured.quantizer === "two-sided-tuned");
}

/** The importance matrices that lie beside the files; variants of one run share one. */
function importanceNote(manifests: readonly Manifest[]): readonly string[] {
	const paths = new Set(manifests.flatMap(({ files }) => files.map(({ path }) => path).filter(isImportance)));
	if (paths.size === 0) return [];
	const named = [...paths]
		.toSorted()
		.map((path) => markdownCode(path))
		.join(", ");
	return [
		`${named}: the importance matrix of the calibration text for your own files (\`llama-quantize --imatrix\`). It is no model, and not counted in the sizes above.`,
	];
}

/** Said at the top of a repo that was made for one commit. */
function commitNote({ source, hubUrl, manifests }: CardRequest): string {
	const url = `${hubUrl}/${source.repo}/tree`;
	const link = (sha: string): string => `[\`${sha.slice(0, 8)}\`](${url}/${sha})`;
	const head = source.headSha === null ? "no commit" : link(source.headSha);
	return `> These files are **of the commit ${link(manifests[0]?.source.revision ?? "")} only**, which was asked for by its name or overtaken by a newer one. The model's main branch stood at ${head} when they were published.`;
}

function howToLoad(of: {
	readonly repo: string;
	readonly container: Container;
	readonly manifests: readonly Manifest[];
	readonly hubUrl: string;
}): string[] {
	const { repo, container, manifests, hubUrl } = of;
	const manifest = manifests[0];
	if (manifest === undefined) return [];
	const note =
		manifests.length > 1 ? [`With ${markdownCode(manifest.recipe)}; the other variants load the same way.`] : [];
	return [
		...note,
		...loadSnippets({ repo, container, manifest, hubUrl }).map(
			(snippet) =>
				`**${snippet.runtime}**${snippet.ran ? "" : " (not run by the bot's tests)"}\n\n\`\`\`${snippet.language}\n${snippet.code}\n\`\`\``,
		),
	];
}

/** Said at the top of an adapter's files. */
function mergedNote({ source, manifests, hubUrl }: CardRequest): readonly string[] {
	const bases = new Map(manifests.flatMap(({ source: { base } }) => (base == null ? [] : [[base.revision, base]])));
	if (bases.size === 0) return [];
	const links = [...bases.values()].map(
		({ repo, revision }) =>
			`[${markdownText(repo)}](${hubUrl}/${repo}) at [\`${revision.slice(0, 8)}\`](${hubUrl}/${repo}/tree/${revision})`,
	);
	return [
		`> ${markdownText(source.repo)} is **an adapter**: by PEFT it was merged onto ${links.join(", and onto ")}, and the merged model was quantized. It is the original that every figure is against.`,
	];
}

function terms(source: SourceCard): string {
	const license =
		source.bases.length > 0
			? `Licences: ${[source, ...source.bases].map((one) => `${markdownText(one.license ?? "none named")} (${markdownText(one.repo)})`).join(", ")}`
			: source.license === null
				? "The source names no licence"
				: `Licence: ${markdownText(source.license)}`;
	return `## Terms\n\n${license}; these files are a derived work under the source's own terms. Copies of its licence files are beside them where it has any.`;
}
