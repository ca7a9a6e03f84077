import { type Request, Router } from "express";
import { z } from "zod";
import { type HubContext, openRepo, parsedBody } from "../hub-context.ts";
import { JOB_HARDWARE } from "../job-hardware.ts";
import type { Repo, SpaceSettings } from "../repo-store.ts";
import { jsonBody } from "./body-parsers.ts";

const key = z.string().regex(/^[a-zA-Z][_a-zA-Z0-9]*$/);
const entrySchema = z.object({ key, value: z.string().default(""), description: z.string().optional() });
const keySchema = z.object({ key });
const hardwareSchema = z.object({
	flavor: z.string().max(50),
	sleepTimeSeconds: z.number().int().min(-1).optional(),
});
const sleepSchema = z.object({ seconds: z.number().int().min(-1) });

/** What a Space is given and asked for. No Space runs on this Hub: its stage says so. */
export function spaceRoutes(context: HubContext): Router {
	const router = Router();
	const base = "/api/spaces/:ns/:name";

	function runtime(repo: Repo): Record<string, unknown> {
		const { space } = repo.record;
		return {
			stage: space.paused ? "PAUSED" : "STOPPED",
			hardware: { current: null, requested: space.hardware },
			gcTimeout: space.sleepSeconds,
			storage: null,
			replicas: { current: 0, requested: 1 },
		};
	}

	async function change(request: Request, make: (before: SpaceSettings) => Partial<SpaceSettings>): Promise<Repo> {
		const { repo } = openRepo(context, request, "space", "write");
		await context.repos.locked(repo, () =>
			context.repos.saveRecord(repo, { space: { ...repo.record.space, ...make(repo.record.space) } }),
		);
		return repo;
	}

	const without = <T>(of: Readonly<Record<string, T>>, name: string): Record<string, T> =>
		Object.fromEntries(Object.entries(of).filter(([one]) => one !== name));

	for (const kind of ["variables", "secrets"] as const) {
		router.get(`${base}/${kind}`, (request, response) => {
			const { repo } = openRepo(context, request, "space", "write");
			response.json(
				Object.fromEntries(
					Object.entries(repo.record.space[kind]).map(([name, entry]) => [name, { key: name, ...entry }]),
				),
			);
		});
		router.post(`${base}/${kind}`, jsonBody, async (request, response) => {
			const { key: name, value, description } = parsedBody(entrySchema, request);
			const entry = {
				updatedAt: context.clock.now().toISOString(),
				...(description === undefined ? {} : { description }),
			};
			const repo = await change(request, (before) =>
				kind === "variables"
					? { variables: { ...before.variables, [name]: { ...entry, value } } }
					: { secrets: { ...before.secrets, [name]: entry } },
			);
			response.json(repo.record.space[kind]);
		});
		router.delete(`${base}/${kind}`, jsonBody, async (request, response) => {
			const { key: name } = parsedBody(keySchema, request);
			const repo = await change(request, (before) =>
				kind === "variables"
					? { variables: without(before.variables, name) }
					: { secrets: without(before.secrets, name) },
			);
			response.json(repo.record.space[kind]);
		});
	}

	router.get("/api/spaces/hardware", (_request, response) => {
		// Jobs are told of their disk besides.
		response.json(JOB_HARDWARE.map(({ ephemeralStorage: _ephemeralStorage, ...rest }) => rest));
	});
	router.get(`${base}/runtime`, (request, response) => {
		response.json(runtime(openRepo(context, request, "space", "read").repo));
	});
	router.post(`${base}/hardware`, jsonBody, async (request, response) => {
		const { flavor, sleepTimeSeconds } = parsedBody(hardwareSchema, request);
		const sleep = sleepTimeSeconds === undefined ? {} : { sleepSeconds: sleepTimeSeconds };
		response.json(runtime(await change(request, () => ({ hardware: flavor, ...sleep }))));
	});
	router.post(`${base}/sleeptime`, jsonBody, async (request, response) => {
		const { seconds } = parsedBody(sleepSchema, request);
		response.json(runtime(await change(request, () => ({ sleepSeconds: seconds }))));
	});
	router.post(`${base}/pause`, async (request, response) => {
		response.json(runtime(await change(request, () => ({ paused: true }))));
	});
	router.post(`${base}/restart`, async (request, response) => {
		response.json(runtime(await change(request, () => ({ paused: false }))));
	});
	return router;
}
