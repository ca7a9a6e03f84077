import { z } from "zod";
import { type HubAccess, modelApiPath } from "./hub-access.ts";
import { requestJson } from "./request-json.ts";

const Ref = z.object({ name: z.string(), targetCommit: z.string().regex(/^[0-9a-f]{40}$/) });
const Refs = z.object({ branches: z.array(Ref), tags: z.array(Ref) });
type Ref = z.infer<typeof Ref>;

/** The branches and tags of a model repo: what only people with write rights in it can move. Pull requests are neither. */
export async function listRefs(
	params: HubAccess & { readonly repo: string },
): Promise<{ readonly branches: readonly Ref[]; readonly tags: readonly Ref[] }> {
	const { repo, ...access } = params;
	return await requestJson({ ...access, path: modelApiPath(repo, "/refs"), schema: Refs });
}
