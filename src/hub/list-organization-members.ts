import { z } from "zod";
import type { HubAccess } from "./hub-access.ts";
import { requestJson } from "./request-json.ts";

const Member = z.object({ _id: z.string().optional(), user: z.string(), role: z.string().optional() });
export type OrganizationMember = z.infer<typeof Member>;

export function listOrganizationMembers(
	params: HubAccess & { readonly organization: string },
): Promise<OrganizationMember[]> {
	const { organization, ...access } = params;
	return requestJson({
		...access,
		path: `/api/organizations/${encodeURIComponent(organization)}/members`,
		schema: z.array(Member),
	});
}
