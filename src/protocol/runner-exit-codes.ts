import type { z } from "zod";
import exitCodes from "../../config/exit-codes.json" with { type: "json" };
import type { FailureCode } from "./events.ts";

/** The runner's exit status for each of its failures, from the table that the runner reads. */
export const RUNNER_EXIT_CODES: Readonly<Record<z.infer<typeof FailureCode>, number>> = exitCodes;
