import { downloadFile } from "@huggingface/hub";
import { RetryableError } from "../errors.ts";
import type { HubAccess } from "./hub-access.ts";

/** One small file of a model repo, into memory. */
export async function downloadRepoFile(
	hub: HubAccess,
	repo: string,
	revision: string,
	path: string,
): Promise<Uint8Array<ArrayBuffer>> {
	const blob = await downloadFile({ ...hub, repo: { type: "model", name: repo }, path, revision, xet: false });
	if (blob === null) throw new RetryableError(`${path} is no longer in ${repo}.`);
	return new Uint8Array(await blob.arrayBuffer());
}
