import { sql } from "kysely";
import type { Database } from "./database.ts";
import { storableText } from "./storable.ts";

/**
 * Counts an answer to somebody without rights, if there may be one more since `since`, of this person and of all; the
 * same comment counts once. Counting and taking are one step: answers at the same moment do not pass the limit.
 */
export async function claimStrangerAnswer(
	database: Database,
	claim: {
		readonly comment: string;
		readonly person: string;
		readonly now: Date;
		readonly since: Date;
		readonly perPerson: number;
		readonly all: number;
	},
): Promise<boolean> {
	const comment = storableText(claim.comment);
	const person = storableText(claim.person.toLowerCase());
	return await database.transaction(async (tx) => {
		await sql`select pg_advisory_xact_lock(hashtextextended('stranger answers', 0))`.execute(tx);
		const known = await tx
			.selectFrom("stranger_answers")
			.select("comment")
			.where("comment", "=", comment)
			.executeTakeFirst();
		if (known !== undefined) return true;
		const counted = await tx
			.selectFrom("stranger_answers")
			.select([
				sql<number>`count(*)::int`.as("all"),
				sql<number>`(count(*) filter (where person = ${person}))::int`.as("own"),
			])
			.where("at", ">=", claim.since)
			.executeTakeFirstOrThrow();
		if (counted.own >= claim.perPerson || counted.all >= claim.all) return false;
		await tx.insertInto("stranger_answers").values({ comment, person, at: claim.now }).execute();
		return true;
	});
}
