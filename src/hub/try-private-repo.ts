import { randomBytes } from "node:crypto";
import { commit, createRepo, deleteRepo } from "@huggingface/hub";
import type { HubWriteAccess } from "./hub-access.ts";
import { hubStatus } from "./hub-request-error.ts";

export type Trial =
	| { readonly kind: "done" }
	/** The Hub said no; nothing was left behind. */
	| { readonly kind: "refused"; readonly status: number; readonly message: string }
	/** It could be made, and not taken away again. */
	| { readonly kind: "left"; readonly repo: string; readonly message: string };

function firstLine(error: unknown): string {
	return (error instanceof Error ? error.message : String(error)).split("\n", 1)[0] ?? "";
}

/**
 * Makes a private model repo in a namespace, writes a file to it and deletes it: the one way to know that a token may,
 * since rights hang on the token, the account's role and the organisation's rules.
 */
export async function tryPrivateRepo(params: HubWriteAccess & { readonly namespace: string }): Promise<Trial> {
	const { namespace, ...access } = params;
	const repo = { type: "model", name: `${namespace}/yaqa-bot-doctor-${randomBytes(6).toString("hex")}` } as const;
	try {
		await createRepo({ ...access, repo, visibility: "private" });
	} catch (error) {
		const status = hubStatus(error);
		if (status === null) throw error;
		return { kind: "refused", status, message: firstLine(error) };
	}
	let refusal: Trial | null = null;
	try {
		const content = new Blob(["Made by `yaqa-bot doctor`, to see whether it may; it can be deleted.\n"]);
		const operations = [{ operation: "addOrUpdate", path: "doctor.txt", content }] as const;
		await commit({ ...access, repo, title: "See whether this may be written", operations: [...operations] });
	} catch (error) {
		refusal = { kind: "refused", status: hubStatus(error) ?? 0, message: firstLine(error) };
	}
	try {
		await deleteRepo({ ...access, repo });
	} catch (error) {
		return { kind: "left", repo: repo.name, message: firstLine(error) };
	}
	return refusal ?? { kind: "done" };
}
