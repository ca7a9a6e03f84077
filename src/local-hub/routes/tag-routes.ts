import { type Request, Router } from "express";
import { type HubContext, identityOf, mayRead, queryText } from "../hub-context.ts";

const NAMED = ["license", "dataset", "region", "base_model", "arxiv"] as const;

/** Which list of tags one stands in: by its prefix, or as a pipeline's, a library's or a language's name. */
function typeOf(
	tag: string,
	known: { readonly pipelines: ReadonlySet<string>; readonly libraries: ReadonlySet<string> },
) {
	const prefix = tag.slice(0, tag.indexOf(":"));
	const named = NAMED.find((one) => one === prefix);
	if (named !== undefined) return named;
	if (known.pipelines.has(tag)) return "pipeline_tag";
	if (known.libraries.has(tag)) return "library";
	return /^[a-z]{2,3}$/.test(tag) ? "language" : "other";
}

/** The tags that the public repos have, by type. */
export function tagRoutes(context: HubContext): Router {
	const router = Router();

	async function tagsOf(request: Request, type: "model" | "dataset"): Promise<Record<string, unknown>> {
		const identity = identityOf(context, request);
		const only = queryText(request, "type");
		const seen = new Set<string>();
		const known = { pipelines: new Set<string>(), libraries: new Set(["onnx", "safetensors", "gguf"]) };
		for (const repo of context.repos.all()) {
			if (repo.record.type !== type || !mayRead(repo, identity)) continue;
			const commit = await context.repos.commit(repo, repo.refs.branches["main"] ?? "");
			if (commit === null) continue;
			const { tags, pipelineTag, libraryName } = await context.facts(commit);
			for (const tag of tags) seen.add(tag);
			if (pipelineTag !== null) known.pipelines.add(pipelineTag);
			if (libraryName !== null) known.libraries.add(libraryName);
		}
		const lists: Record<string, { id: string; label: string; type: string }[]> = {};
		for (const id of [...seen].sort()) {
			const kind = typeOf(id, known);
			if (only !== null && only !== kind) continue;
			lists[kind] ??= [];
			lists[kind].push({ id, label: id.slice(id.indexOf(":") + 1), type: kind });
		}
		return lists;
	}

	for (const type of ["model", "dataset"] as const)
		router.get(`/api/${type}s-tags-by-type`, async (request, response) => {
			response.json(await tagsOf(request, type));
		});
	return router;
}
