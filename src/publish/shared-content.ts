import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Refusal } from "../errors.ts";
import { downloadRepoFile } from "../hub/download-repo-file.ts";
import type { HubWriteAccess } from "../hub/hub-access.ts";
import type { FileContent } from "./commit-files.ts";
import type { PublishableVariant } from "./publishable-variant.ts";
import { manifestPath, type PublishedManifest } from "./published-manifests.ts";
import { isShareable, mergeConfigs, ownVersionPath } from "./shared-files.ts";

/** What must be written because variants of this repo have different versions of one path. */
export async function shareFiles(request: {
	readonly hub: HubWriteAccess;
	readonly repo: string;
	readonly revision: string;
	readonly variants: readonly PublishableVariant[];
	readonly kept: readonly PublishedManifest[];
}): Promise<
	{ readonly ok: true; readonly files: readonly FileContent[] } | { readonly ok: false; readonly refusal: Refusal }
> {
	const { hub, repo, revision, variants, kept } = request;
	type Version = {
		readonly own: string;
		readonly sha256: string;
		readonly read: () => Promise<Uint8Array<ArrayBuffer>>;
	};
	const versions = new Map<string, Version[]>();
	const add = (path: string, version: Version): void => {
		versions.set(path, [...(versions.get(path) ?? []), version]);
	};
	// Newest first: its version is the one that the others are merged into.
	for (const { manifest, directory } of variants) {
		for (const { path, sha256 } of manifest.files) {
			const own = ownVersionPath(manifestPath(manifest.recipe), path);
			add(path, { own, sha256, read: async () => new Uint8Array(await readFile(join(directory, path))) });
		}
	}
	for (const entry of kept) {
		for (const { path, listed } of entry.files) {
			const sha256 = entry.manifest.files.find((file) => file.path === path)?.sha256 ?? "";
			add(path, {
				own: ownVersionPath(entry.path, path),
				sha256,
				read: () => downloadRepoFile(hub, repo, revision, listed.path),
			});
		}
	}
	const files: FileContent[] = [];
	for (const [path, found] of versions) {
		if (new Set(found.map((version) => version.sha256)).size < 2) continue;
		if (!isShareable(path)) {
			return {
				ok: false,
				refusal: {
					code: "target-taken",
					message: `${repo} would hold two different files named ${path}; nothing was changed there.`,
					remedy: "Ask for the other variants of this repo again as well, so that all are made from the same source.",
				},
			};
		}
		const contents = await Promise.all(found.map((version) => version.read()));
		const [newest = new Uint8Array(), ...others] = contents;
		const root =
			path === "config.json" ? new TextEncoder().encode(mergeConfigs(text(newest), others.map(text))) : newest;
		const rootSha256 = createHash("sha256").update(root).digest("hex");
		files.push({ path, from: "memory", content: root });
		found.forEach((version, index) => {
			const content = contents[index];
			if (content !== undefined && version.sha256 !== rootSha256) {
				files.push({ path: version.own, from: "memory", content });
			}
		});
	}
	return { ok: true, files };
}

function text(bytes: Uint8Array): string {
	return new TextDecoder().decode(bytes);
}
