import type { Manifest } from "../protocol/manifest.ts";

export type PublishableVariant = {
	readonly manifest: Manifest;
	/** The verified folder: the manifest's files and `manifest.json`. */
	readonly directory: string;
	/** Files that the target's head holds already and `directory` lacks. */
	readonly inPlace?: ReadonlySet<string>;
};
