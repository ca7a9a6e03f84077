import type { Handle } from "./database.ts";

/** Makes `owner` the only holder of `name` until `until`; `false` while somebody else is. */
export async function acquireLease(
	handle: Handle,
	request: { readonly name: string; readonly owner: string; readonly now: Date; readonly until: Date },
): Promise<boolean> {
	const held = { owner: request.owner, held_until: request.until };
	const row = await handle
		.insertInto("leases")
		.values({ name: request.name, ...held })
		.onConflict((conflict) =>
			conflict
				.column("name")
				.doUpdateSet(held)
				.where((eb) => eb.or([eb("leases.held_until", "<", request.now), eb("leases.owner", "=", request.owner)])),
		)
		.returning("name")
		.executeTakeFirst();
	return row !== undefined;
}

export async function releaseLease(
	handle: Handle,
	request: { readonly name: string; readonly owner: string },
): Promise<void> {
	await handle.deleteFrom("leases").where("name", "=", request.name).where("owner", "=", request.owner).execute();
}
