import { z } from "zod";
import type { HubWriteAccess } from "./hub-access.ts";
import { requestJson } from "./request-json.ts";

/** Asks the Hub whether the token may start jobs in a namespace; starts none. Throws what the Hub refuses it with. */
export async function mayRunJobs(params: HubWriteAccess & { readonly namespace: string }): Promise<void> {
	const { namespace, ...access } = params;
	const path = `/api/jobs/${encodeURIComponent(namespace)}/auth-check/write`;
	await requestJson({ ...access, method: "POST", path, schema: z.unknown(), repeatable: true });
}
