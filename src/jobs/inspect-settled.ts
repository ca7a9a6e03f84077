import { findSettledBase } from "../db/settled-base.ts";
import type { Inspection } from "../records/source.ts";
import type { JobsContext } from "./context.ts";

/**
 * Looks at a source. Of an adapter's commit that was looked at before, the base is the commit that it had then: a push to
 * the base changes nothing of what is asked of the adapter.
 */
export async function inspectSettled(
	{ ports, database }: JobsContext,
	source: { readonly repo: string; readonly revision: string },
): Promise<Inspection> {
	const looked = await ports.inspectSource(source);
	const sha = looked.ok ? looked.facts.sha : looked.sha;
	if (sha === null || (looked.ok && looked.facts.base == null)) return looked;
	const settled = await findSettledBase(database.handle, { repo: source.repo, sha });
	if (settled === null || (looked.ok && looked.facts.base?.sha === settled.sha)) return looked;
	return await ports.inspectSource({ repo: source.repo, revision: sha, baseSha: settled.sha });
}
