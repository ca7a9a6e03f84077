import { z } from "zod";

/** Where a list goes on. Addresses are written and shared by people: what does not parse counts as not given. */
export const CursorParameter = z.object({ cursor: z.string().min(1).max(1000).nullable().catch(null) });
