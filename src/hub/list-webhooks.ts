import { z } from "zod";
import type { HubAccess } from "./hub-access.ts";
import { requestJson } from "./request-json.ts";
import { Webhook } from "./webhook.ts";

/** The webhooks of the token's user. */
export function listWebhooks(access: HubAccess): Promise<Webhook[]> {
	return requestJson({ ...access, path: "/api/settings/webhooks", schema: z.array(Webhook) });
}
