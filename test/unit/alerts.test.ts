import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { parse } from "yaml";
import { z } from "zod";
import { createMetrics } from "../../src/web/metrics.ts";

const Rules = z.object({
	groups: z.array(
		z.object({
			name: z.string(),
			rules: z.array(
				z.object({
					alert: z.string(),
					expr: z.string(),
					annotations: z.object({ summary: z.string(), action: z.string() }),
				}),
			),
		}),
	),
});
const text = readFileSync(join(import.meta.dirname, "../../deploy/alerts.yaml"), "utf8");
const rules = Rules.parse(parse(text)).groups.flatMap((group) => group.rules);

test("every alert is about a metric that the bot has, by labels that it has", async () => {
	const { registry } = createMetrics(() => 0);
	const known = new Map((await registry.getMetricsAsJSON()).map((metric) => [metric.name, metric]));
	const named = rules.flatMap(({ expr }) => [...expr.matchAll(/\b(yaqa_bot_\w+)(?:\{(\w+)=)?/g)]);
	assert.ok(named.length >= 6);
	for (const [, name = "", label] of named) {
		assert.ok(known.has(name), name);
		if (label === undefined) continue;
		const metric = registry.getSingleMetric(name);
		assert.ok(metric !== undefined && "labelNames" in metric && Array.isArray(metric.labelNames), name);
		assert.ok(metric.labelNames.includes(label), `${name}{${label}}`);
	}
});

test("states and outcomes that alerts name exist", () => {
	const states = ["failed", "done", "unauthorized"];
	for (const { expr } of rules) {
		for (const [, value = ""] of expr.matchAll(/(?:outcome|state)="([^"]+)"/g))
			assert.ok(states.includes(value), value);
	}
});
