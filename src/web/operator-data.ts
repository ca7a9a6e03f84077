import type { Configuration } from "../config/schema.ts";
import type { LinePlace } from "../db/admission.ts";
import type { IsolationLevel } from "../runners/isolation.ts";
import type { KeptThings } from "./metrics.ts";

/** What the operator's page reads, and the one thing that it does, as plain functions. */
export type OperatorData = {
	/** Jobs that may start, the next one first. */
	line(limit: number): Promise<readonly LinePlace[]>;
	/** What the jobs of this calendar month may have cost. */
	spentMicroUsd(): Promise<number>;
	/** `null`: it was not looked over yet. */
	kept(): KeptThings | null;
	/** `null`: runs are elsewhere. */
	isolation(): Promise<{ readonly level: IsolationLevel; readonly reason: string | null } | null>;
	/** Has a settled delivery worked on anew; `false`: there is none, or it is under way. */
	replay(deliveryId: string): Promise<boolean>;
	readonly settings: Pick<Configuration, "budget" | "retention" | "runner">;
};
