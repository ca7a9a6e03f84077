import type { NextFunction, Request, Response } from "express";
import { z } from "zod";

/**
 * What goes wrong on a matching route.
 * `status` answers it instead of the handler; `status-after` lets the handler do its work and then answers it;
 * `disconnect` and `disconnect-after` cut the connection before or after the work; `slow` only waits.
 */
export const routeFaultSchema = z.object({
	method: z.string().max(10).optional(),
	/** A regular expression over the request's path and query. */
	path: z.string().max(500),
	kind: z.enum(["status", "status-after", "disconnect", "disconnect-after", "slow"]).default("status"),
	status: z.number().int().min(400).max(599).default(503),
	delayMilliseconds: z.number().int().min(0).max(600_000).default(0),
	retryAfterSeconds: z.number().int().min(0).optional(),
	times: z.number().int().min(1).default(1),
});
export const faultsSchema = z.object({
	dropWebhooks: z.number().int().min(0).optional(),
	duplicateWebhooks: z.number().int().min(0).optional(),
	routes: z.array(routeFaultSchema).optional(),
});
export type FaultPlan = z.input<typeof faultsSchema>;

export type Faults = {
	/** Replaces the switches that the plan names; the others stay. */
	set(plan: FaultPlan): void;
	clear(): void;
	state(): Readonly<Record<string, unknown>>;
	takeDroppedDelivery(): boolean;
	takeDuplicatedDelivery(): boolean;
	middleware(request: Request, response: Response, next: NextFunction): void;
};

type ArmedRoute = z.infer<typeof routeFaultSchema> & { pattern: RegExp; left: number };

export function createFaults(initial: FaultPlan = {}): Faults {
	let drop = 0;
	let duplicate = 0;
	let routes: ArmedRoute[] = [];

	const faults: Faults = {
		set(plan) {
			const parsed = faultsSchema.parse(plan);
			const armed = parsed.routes?.map((route) => ({ ...route, pattern: new RegExp(route.path), left: route.times }));
			drop = parsed.dropWebhooks ?? drop;
			duplicate = parsed.duplicateWebhooks ?? duplicate;
			routes = armed ?? routes;
		},
		clear() {
			drop = 0;
			duplicate = 0;
			routes = [];
		},
		state: () => ({
			dropWebhooks: drop,
			duplicateWebhooks: duplicate,
			routes: routes.map(({ pattern: _pattern, ...route }) => route),
		}),
		takeDroppedDelivery() {
			if (drop === 0) return false;
			drop--;
			return true;
		},
		takeDuplicatedDelivery() {
			if (duplicate === 0) return false;
			duplicate--;
			return true;
		},
		middleware(request, response, next) {
			const fault = routes.find(
				(route) =>
					route.left > 0 &&
					(route.method === undefined || route.method.toUpperCase() === request.method) &&
					route.pattern.test(request.originalUrl),
			);
			if (fault === undefined) {
				next();
				return;
			}
			fault.left--;
			const answer = (): void => {
				response.status(fault.status);
				if (fault.retryAfterSeconds !== undefined) response.set("Retry-After", String(fault.retryAfterSeconds));
				if (fault.status === 429) {
					response.set("RateLimit", `"api";r=0;t=${fault.retryAfterSeconds ?? 1}`);
					response.set("RateLimit-Policy", '"fixed window";"api";q=500;w=300');
				}
				response.type("application/json").send(JSON.stringify({ error: `Fault switch: ${fault.status}` }));
			};
			const act = (): void => {
				switch (fault.kind) {
					case "status":
						// drain, so that the client has sent its body and reads the answer
						request.resume();
						answer();
						return;
					case "disconnect":
						request.socket.destroy();
						return;
					case "slow":
						next();
						return;
					case "status-after":
						response.json = () => {
							answer();
							return response;
						};
						next();
						return;
					case "disconnect-after":
						response.json = () => {
							request.socket.destroy();
							return response;
						};
						next();
						return;
				}
			};
			if (fault.delayMilliseconds > 0) setTimeout(act, fault.delayMilliseconds);
			else act();
		},
	};
	faults.set(initial);
	return faults;
}
