import assert from "node:assert/strict";
import test from "node:test";
import { validateYaml } from "../../src/hub/validate-yaml.ts";
import { BOT, testHub } from "../support/local-hub-fixture.ts";

test("a card that the Hub refuses comes back with its errors", async (context) => {
	const hub = await testHub(context);
	const access = { hubUrl: hub.url, accessToken: BOT };

	const refused = await validateYaml({ ...access, content: "---\ntags: [\n---\n# A card\n" });
	const accepted = await validateYaml({ ...access, content: "---\nlicense: apache-2.0\n---\n# A card\n" });

	assert.equal(refused.errors.length > 0, true);
	assert.deepEqual(accepted.errors, []);
});
