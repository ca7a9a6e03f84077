import { listModels, modelInfo } from "@huggingface/hub";
import { repoName } from "../protocol/job-spec.ts";
import type { HubAccess } from "./hub-access.ts";
import { hubStatus } from "./hub-request-error.ts";

type Head = { readonly repo: string; readonly sha: string };

const SHA = /^[0-9a-f]{40}$/;

/** The models of a namespace, or one repo, with the commit of their main branch; repos without one are left out. */
export async function* listHeads(
	params: HubAccess & {
		readonly of:
			| { readonly kind: "namespace"; readonly namespace: string }
			| { readonly kind: "repo"; readonly repo: string };
	},
): AsyncGenerator<Head> {
	const { of, ...access } = params;
	switch (of.kind) {
		case "namespace":
			for await (const model of listModels({
				...access,
				search: { owner: of.namespace },
				additionalFields: ["sha"],
			})) {
				// Lists lag behind pushes; without a commit in the list the repo itself is asked.
				const head = SHA.test(String(model.sha))
					? { repo: model.name, sha: String(model.sha) }
					: await headOf(access, model.name);
				if (head !== null) yield head;
			}
			return;
		case "repo": {
			const head = await headOf(access, of.repo);
			if (head !== null) yield head;
			return;
		}
	}
}

/** Under the name that the repo has now. */
async function headOf(access: HubAccess, repo: string): Promise<Head | null> {
	try {
		const { name, sha } = await modelInfo({ ...access, name: repo, revision: "main", additionalFields: ["sha"] });
		return SHA.test(String(sha)) ? { repo: repoName.safeParse(name).data ?? repo, sha: String(sha) } : null;
	} catch (error) {
		const status = hubStatus(error);
		if (status === 401 || status === 403 || status === 404) return null;
		throw error;
	}
}
