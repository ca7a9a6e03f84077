import { availableParallelism, totalmem } from "node:os";
import { conditionalFetch } from "../hub/conditional-fetch.ts";
import { listHeads } from "../hub/list-heads.ts";
import { readOwnerSettings } from "../hub/read-owner-settings.ts";
import type { Ports, SketchStore } from "../jobs/ports.ts";
import { manifestSigner } from "../publish/manifest-signature.ts";
import { createPublishPorts } from "../publish/publish-ports.ts";
import { createSketchStore } from "../publish/sketch-store.ts";
import { createVerifyPorts } from "../verify/verify-ports.ts";
import { publisherAccess, readAccess } from "./hub-access.ts";
import type { Settings } from "./settings.ts";

/** The data set repo that keeps sketches, where one is configured. */
function sketchStoreOf({ configuration, secrets, publisherToken }: Settings): SketchStore | null {
	const { repo, visibility } = configuration.sketches;
	if (repo === null) return null;
	const writer = { ...publisherAccess(configuration, secrets), accessToken: publisherToken };
	return createSketchStore({ writer, reader: readAccess(configuration, secrets), repo, visibility });
}

/** Everything that the jobs reach outside through, but for the answers to comments. */
export function buildPorts(settings: Settings): Omit<Ports, "reply"> {
	const { configuration, secrets, publisherToken } = settings;
	const publisher = { ...publisherAccess(configuration, secrets), accessToken: publisherToken };
	const reader = readAccess(configuration, secrets);
	const sweeper = { ...reader, fetch: conditionalFetch(reader.fetch ?? fetch) };
	return {
		...createVerifyPorts({
			reader,
			sourceLimits: { maximumWeightBytes: 4 * configuration.watch.maxParameters },
			policy: configuration.verification,
			childLimits: {
				milliseconds: 30 * 60_000,
				memoryBytes: Math.floor(totalmem() * 0.8),
				threads: availableParallelism(),
			},
		}),
		...createPublishPorts({
			publisher,
			reader,
			discussions: publisher,
			namespace: configuration.hub.namespace,
			publicUrl: configuration.server.publicUrl,
			mention: configuration.hub.mention,
			sign: secrets.signingKey === null ? null : manifestSigner(secrets.signingKey),
		}),
		sketchStore: sketchStoreOf(settings),
		listHeads: (of) => listHeads({ ...sweeper, of }),
		readOwnerSettings: (of) => readOwnerSettings({ ...reader, ...of }),
	};
}
