export type DeliveryOutcome = "pending" | "accepted" | "ignored" | "failed";

export type DeliveryRecord = {
	readonly id: string;
	readonly source: "hub" | "github";
	readonly dedupeKey: string;
	readonly receivedAt: Date;
	readonly outcome: DeliveryOutcome;
	/** Why it was ignored, or what failed. */
	readonly detail: string | null;
	readonly body: unknown;
};
