import { timingSafeEqual } from "node:crypto";
import { type Request, Router } from "express";
import { digestOf } from "../digest.ts";
import { type Faults, faultsSchema } from "../faults.ts";
import { parsedBody } from "../hub-context.ts";
import { HubError } from "../hub-error.ts";
import { jsonBody } from "./body-parsers.ts";

/** The fault switches, for tests and rehearsals; open to the admin token alone. */
export function adminRoutes(deps: { adminToken: string; faults: Faults }): Router {
	const router = Router();
	const path = "/__local-hub/faults";

	function guard(request: Request): void {
		const given = (request.headers.authorization ?? "").replace(/^Bearer /, "");
		if (!timingSafeEqual(digestOf(given), digestOf(deps.adminToken)))
			throw new HubError(401, "This needs the admin token of the local Hub.");
	}

	router.get(path, (request, response) => {
		guard(request);
		response.json(deps.faults.state());
	});
	router.post(path, jsonBody, (request, response) => {
		guard(request);
		const plan = parsedBody(faultsSchema, request);
		try {
			deps.faults.set(plan);
		} catch {
			throw new HubError(400, "A path is not a regular expression.");
		}
		response.json(deps.faults.state());
	});
	router.delete(path, (request, response) => {
		guard(request);
		deps.faults.clear();
		response.json(deps.faults.state());
	});
	return router;
}
