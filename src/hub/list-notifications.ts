import { z } from "zod";
import type { HubAccess } from "./hub-access.ts";
import { requestJson } from "./request-json.ts";

const Notification = z.object({
	type: z.string(),
	updatedAt: z.string(),
	read: z.boolean(),
	repo: z.object({ name: z.string(), type: z.string() }).optional(),
	discussion: z
		.object({ id: z.string(), num: z.int(), title: z.string(), status: z.string(), isPullRequest: z.boolean() })
		.optional(),
});
type Notification = z.infer<typeof Notification>;

/** Mentions and replies to the token's user: how the bot learns of them where no webhook can reach it. */
export async function listNotifications(
	params: HubAccess & { readonly page?: number; readonly mention?: "all" | "participating" | "mentions" },
): Promise<Notification[]> {
	const { page = 0, mention = "mentions", ...access } = params;
	const query = new URLSearchParams({ p: String(page), readStatus: "unread", mention });
	const answer = await requestJson({
		...access,
		path: `/api/notifications?${query}`,
		schema: z.object({ notifications: z.array(Notification) }),
	});
	return answer.notifications;
}
