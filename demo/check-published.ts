import { createHash } from "node:crypto";
import { listFiles } from "@huggingface/hub";
import type { z } from "zod";
import { Manifest } from "../src/protocol/manifest.ts";
import type { Variant } from "./follow-job.ts";

type PublishedFile = { readonly path: string; readonly size: number; readonly sha256: string };

export type PublishedVariant = {
	readonly recipe: string;
	readonly repo: string;
	readonly url: string;
	/** As the Hub serves them to somebody without a token. */
	readonly files: readonly PublishedFile[];
	readonly manifest: Manifest;
	/** Why the published files are not what was measured; empty when they are. */
	readonly problems: readonly string[];
};

const MANIFEST_PATH = /^(manifest\.json|manifests\/[A-Za-z0-9._-]+\.json)$/;

async function download(hubUrl: string, repo: string, path: string): Promise<Response> {
	const encoded = path.split("/").map(encodeURIComponent).join("/");
	const response = await fetch(`${hubUrl}/${repo}/resolve/main/${encoded}`, { signal: AbortSignal.timeout(300_000) });
	if (!response.ok || response.body === null) {
		throw new Error(`${repo}/${path} cannot be downloaded without a token: status ${response.status}.`);
	}
	return response;
}

async function measured(hubUrl: string, repo: string, path: string): Promise<PublishedFile> {
	const { body } = await download(hubUrl, repo, path);
	const hash = createHash("sha256");
	let size = 0;
	for await (const chunk of body ?? []) {
		hash.update(chunk);
		size += chunk.byteLength;
	}
	return { path, size, sha256: hash.digest("hex") };
}

function differences(manifest: z.infer<typeof Manifest>, files: readonly PublishedFile[]): string[] {
	return manifest.files.flatMap((wanted) => {
		const found = files.find((file) => file.path === wanted.path);
		if (found === undefined) return [`${wanted.path} is missing`];
		if (found.sha256 !== wanted.sha256 || found.size !== wanted.size)
			return [`${wanted.path} differs from the manifest`];
		return [];
	});
}

/** Downloads a published variant as anybody could, and compares it with its manifest. */
export async function checkPublished(hubUrl: string, variant: Variant): Promise<PublishedVariant> {
	const { repo, url, recipe } = variant;
	const paths: string[] = [];
	for await (const entry of listFiles({ hubUrl, repo: { type: "model", name: repo }, recursive: true })) {
		if (entry.type === "file") paths.push(entry.path);
	}
	for (const path of paths.filter((candidate) => MANIFEST_PATH.test(candidate))) {
		const manifest = Manifest.parse(await (await download(hubUrl, repo, path)).json());
		if (manifest.recipe !== recipe) continue;
		const wanted = manifest.files.map((file) => file.path).filter((file) => paths.includes(file));
		const files: PublishedFile[] = [];
		for (const file of wanted) files.push(await measured(hubUrl, repo, file));
		return { recipe, repo, url, files, manifest, problems: differences(manifest, files) };
	}
	throw new Error(`${repo} has no manifest of ${recipe}.`);
}
