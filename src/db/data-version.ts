import { sql } from "kysely";
import type { Handle } from "./database.ts";

/** What something was made of: the public lists of models and variants, or all that there is of one source. */
export type DataScope = { readonly kind: "catalogue" } | { readonly kind: "source"; readonly repo: string };

/**
 * Another text after every committed change of what is in the scope, and never an earlier one again. Read before the data
 * itself: a change between the two then leaves what is newer under a version that nobody gets any more.
 */
export async function dataVersion(handle: Handle, scope: DataScope): Promise<string> {
	const { rows } =
		scope.kind === "catalogue"
			? await sql<{ version: string }>`select changed_by::text as version from catalogue_version`.execute(handle)
			: // Each version of a row bears the number of the transaction that wrote it.
				await sql<{
					version: string;
				}>`select md5(coalesce(string_agg(written_by, ' ' order by written_by), '')) as version
					from (select xmin::text as written_by from variants where source_repo = ${scope.repo}
					union all select xmin::text from jobs where source_repo = ${scope.repo}
					union all select xmin::text from source_visibility where repo = ${scope.repo}) as every_row`.execute(handle);
	return rows[0]?.version ?? "";
}
