import { z } from "zod";
import { type HubAccess, modelApiPath } from "./hub-access.ts";
import { hubStatus } from "./hub-request-error.ts";
import { requestJson } from "./request-json.ts";
import { userOverview } from "./user-overview.ts";

export type Watchable = {
	readonly type: "user" | "org" | "model";
	/** As the Hub writes it: a renamed model has its new name. */
	readonly name: string;
};

const Organization = z.object({ name: z.string() });
const Model = z.object({ id: z.string() });

async function unlessAbsent<Result>(work: () => Promise<Result>): Promise<Result | null> {
	try {
		return await work();
	} catch (error) {
		const status = hubStatus(error);
		// 401 is what the Hub says of a repo that the asker may not know of.
		if (status === 404 || status === 401) return null;
		throw error;
	}
}

/** What the Hub has under a name, `namespace` or `namespace/model`; `null` where the asker sees nothing of that name. */
export async function findWatchable(params: HubAccess & { readonly name: string }): Promise<Watchable | null> {
	const { name, ...access } = params;
	if (name.includes("/")) {
		const model = await unlessAbsent(() => requestJson({ ...access, path: modelApiPath(name), schema: Model }));
		return model === null ? null : { type: "model", name: model.id };
	}
	const user = await userOverview({ ...access, name });
	if (user !== null) return { type: "user", name: user.name };
	const organization = await unlessAbsent(() =>
		requestJson({ ...access, path: `/api/organizations/${encodeURIComponent(name)}/overview`, schema: Organization }),
	);
	return organization === null ? null : { type: "org", name: organization.name };
}
