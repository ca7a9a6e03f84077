import { z } from "zod";
import { type HubAccess, modelApiPath } from "./hub-access.ts";
import { requestJson } from "./request-json.ts";

const Ref = z.object({ name: z.string(), ref: z.string(), targetCommit: z.string() });
const Refs = z.object({ branches: z.array(Ref), tags: z.array(Ref), pullRequests: z.array(Ref).optional() });
export type RepoRefs = z.infer<typeof Refs>;

export function listRefs(params: HubAccess & { readonly repo: string }): Promise<RepoRefs> {
	const { repo, ...access } = params;
	return requestJson({ ...access, path: modelApiPath(repo, "/refs?include_prs=1"), schema: Refs });
}
