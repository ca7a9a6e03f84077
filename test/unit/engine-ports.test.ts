import assert from "node:assert/strict";
import { test } from "node:test";
import type { Ports } from "../../src/jobs/ports.ts";
import { createPublishPorts } from "../../src/publish/publish-ports.ts";
import { createVerifyPorts } from "../../src/verify/verify-ports.ts";

/** The folders below `jobs` may not import its types; that they fit is held here, by the compiler. */
test("verifying and publishing fit the ports that the engine is built with", () => {
	const reader = { hubUrl: "http://127.0.0.1:1" };
	const hub = { ...reader, accessToken: "hf_test" };
	const ports: Pick<
		Ports,
		| "inspectSource"
		| "fetchSource"
		| "verify"
		| "nameTarget"
		| "stage"
		| "fetchStaged"
		| "removeStaging"
		| "publish"
		| "announce"
	> = {
		...createVerifyPorts({
			reader,
			sourceLimits: { maximumWeightBytes: 1 },
			childLimits: { milliseconds: 1, memoryBytes: 1, threads: 1 },
			policy: { unmeasured: "refuse", floor: [] },
		}),
		...createPublishPorts({ reader, publisher: hub, discussions: hub, namespace: "bot", publicUrl: null }),
	};
	assert.equal(typeof ports.publish, "function");
});
