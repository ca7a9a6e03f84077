import { z } from "zod";
import type { HubAccess } from "./hub-access.ts";
import { requestJson } from "./request-json.ts";

export async function markNotificationsRead(
	params: HubAccess & { readonly discussionIds: readonly string[] },
): Promise<void> {
	const { discussionIds, ...access } = params;
	await requestJson({
		...access,
		method: "POST",
		path: "/api/notifications/mark-as-read",
		body: { discussionIds, read: true },
		schema: z.unknown(),
		repeatable: true,
	});
}
