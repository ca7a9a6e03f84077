import { z } from "zod";
import { repoName } from "../protocol/job-spec.ts";
import type { Person } from "../records/person.ts";
import type { HubWriteAccess } from "./hub-access.ts";
import { hubStatus } from "./hub-request-error.ts";
import { requestJson } from "./request-json.ts";

const MAXIMUM_ORGANIZATIONS = 1000;
const accountName = z.string().regex(/^[A-Za-z0-9._-]{1,96}$/);

/** What the Hub tells an app of who signed in to it. Fields that are not read may be anything. */
const UserInfo = z.object({
	sub: z.string().min(1).max(100),
	preferred_username: accountName,
	orgs: z
		.array(
			z.object({
				preferred_username: accountName,
				/** Absent: the person did not let the app reach the organisation, but belongs to it. */
				roleInOrg: z.string().optional(),
			}),
		)
		.max(MAXIMUM_ORGANIZATIONS)
		.catch([]),
});

/** Who it is by what the Hub says at this moment; `null`: the token is not, or no longer, accepted. */
export async function personOfToken(access: HubWriteAccess): Promise<Person | null> {
	try {
		const info = await requestJson({ ...access, path: "/oauth/userinfo", schema: UserInfo });
		return {
			subject: info.sub,
			name: info.preferred_username,
			organizations: info.orgs.filter((one) => one.roleInOrg !== "no_access").map((one) => one.preferred_username),
		};
	} catch (error) {
		const status = hubStatus(error);
		if (status === 401 || status === 403) return null;
		throw error;
	}
}

const PrivateModels = z.array(z.object({ id: z.string(), private: z.boolean().optional() }));
const PAGE = 1000;
const MAXIMUM_PAGES = 20;

function nextPath(link: string | null, hubUrl: string): string | null {
	const [, address] = /<([^>]+)>;\s*rel="next"/.exec(link ?? "") ?? [];
	if (address === undefined || !URL.canParse(address, hubUrl)) return null;
	const next = new URL(address, hubUrl);
	// A token goes to the Hub alone.
	return next.origin === new URL(hubUrl).origin ? `${next.pathname}${next.search}` : null;
}

/** The private models of a namespace that the token may read, by what the Hub lists for it. */
export async function listPrivateModels(access: HubWriteAccess, namespace: string): Promise<readonly string[]> {
	const names: string[] = [];
	let path: string | null = `/api/models?author=${encodeURIComponent(namespace)}&limit=${PAGE}`;
	for (let page = 0; page < MAXIMUM_PAGES && path !== null; page++) {
		let link: string | null = null;
		const send = access.fetch ?? fetch;
		const models: z.infer<typeof PrivateModels> = await requestJson({
			...access,
			path,
			schema: PrivateModels,
			fetch: async (...request) => {
				const response = await send(...request);
				link = response.headers.get("link");
				return response;
			},
		});
		for (const model of models) {
			if (model.private === true && repoName.safeParse(model.id).success) names.push(model.id);
		}
		path = nextPath(link, access.hubUrl);
	}
	return names;
}
