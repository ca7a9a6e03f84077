import { z } from "zod";
import type { JobsContext } from "../../jobs/context.ts";
import { storeDueSketch } from "../../jobs/stored-sketches.ts";

const Message = z.object({ repo: z.string(), sha: z.string(), fingerprint: z.string() });

/** A sketch that a run left is uploaded to the store. */
export function storeSketchHandler(context: JobsContext): (data: object) => Promise<void> {
	return async (data) => await storeDueSketch(context, Message.parse(data));
}
