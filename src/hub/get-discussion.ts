import { Discussion } from "./discussion.ts";
import { type HubAccess, modelApiPath } from "./hub-access.ts";
import { requestJson } from "./request-json.ts";

export function getDiscussion(
	params: HubAccess & { readonly repo: string; readonly num: number },
): Promise<Discussion> {
	const { repo, num, ...access } = params;
	return requestJson({ ...access, path: modelApiPath(repo, `/discussions/${num}`), schema: Discussion });
}
