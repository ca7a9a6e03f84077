import { z } from "zod";
import type { HubAccess } from "./hub-access.ts";
import { hubStatus } from "./hub-request-error.ts";
import { requestJson } from "./request-json.ts";

const Overview = z.object({ _id: z.string().optional(), user: z.string(), type: z.string().optional() });

/** The user of that name, or `null`. */
export async function userOverview(
	params: HubAccess & { readonly name: string },
): Promise<{ id: string | null; name: string } | null> {
	const { name, ...access } = params;
	try {
		const user = await requestJson({
			...access,
			path: `/api/users/${encodeURIComponent(name)}/overview`,
			schema: Overview,
		});
		return { id: user._id ?? null, name: user.user };
	} catch (error) {
		if (hubStatus(error) === 404) return null;
		throw error;
	}
}
