import { z } from "zod";
import type { HubAccess } from "./hub-access.ts";
import { requestJson } from "./request-json.ts";

const Accelerator = z.object({ model: z.string(), quantity: z.string(), vram: z.string() });
const JobHardware = z.object({
	name: z.string(),
	prettyName: z.string(),
	cpu: z.string(),
	ram: z.string(),
	ephemeralStorage: z.string().nullish(),
	accelerator: Accelerator.nullish(),
	unitCostMicroUSD: z.number().min(0),
	unitLabel: z.string(),
});
export type JobHardware = z.infer<typeof JobHardware>;

/** What the Hub's jobs can run on, with prices a minute. Public: no token is needed. */
export function listJobHardware(access: HubAccess): Promise<readonly JobHardware[]> {
	return requestJson({ ...access, path: "/api/jobs/hardware", schema: z.array(JobHardware) });
}
