import { modelInfo } from "@huggingface/hub";
import type { HubAccess } from "./hub-access.ts";
import { hubStatus } from "./hub-request-error.ts";

/** Whether a model can be seen by everybody: looked up without any token. */
export async function isPublicModel(
	params: Omit<HubAccess, "accessToken"> & { readonly repo: string },
): Promise<boolean> {
	const { repo, hubUrl, fetch } = params;
	try {
		await modelInfo({ name: repo, hubUrl, ...(fetch === undefined ? {} : { fetch }) });
		return true;
	} catch (error) {
		const status = hubStatus(error);
		if (status === 401 || status === 403 || status === 404) return false;
		throw error;
	}
}
