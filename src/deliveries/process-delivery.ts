import { isBrokenConnection } from "../db/broken-connection.ts";
import { leaseDelivery, renewDeliveryLease, settleDelivery } from "../db/deliveries.ts";
import { PermanentError, RetryableError } from "../errors.ts";
import { later } from "../jobs/context.ts";
import { keepLease, LEASE_SECONDS } from "../jobs/keep-lease.ts";
import { inTrace } from "../log.ts";
import type { DeliveriesContext } from "./deliveries-context.ts";
import { handleGitHubDelivery } from "./handle-github-delivery.ts";
import { handleHubDelivery } from "./handle-hub-delivery.ts";

const MAXIMUM_ATTEMPTS = 12;
const MAXIMUM_BUG_ATTEMPTS = 4;
const MAXIMUM_DELAY_SECONDS = 600;

/** Works on a stored delivery until it is settled; a failure leaves it pending for another try. */
export async function processDelivery(context: DeliveriesContext, id: string): Promise<void> {
	const { database, clock } = context;
	const owner = `${context.owner}:${context.newId()}`;
	const now = clock.now();
	const leased = await leaseDelivery(database.handle, { id, owner, now, until: later(now, LEASE_SECONDS) });
	if (leased === null) return;
	await inTrace(id, () => workOn(context, leased, owner));
}

async function workOn(
	context: DeliveriesContext,
	leased: NonNullable<Awaited<ReturnType<typeof leaseDelivery>>>,
	owner: string,
): Promise<void> {
	const { database, clock, log } = context;
	const { id } = leased.delivery;
	// The lease counted this attempt. One that ends the process never comes to the end of this function: without a look at
	// the count beforehand it would be tried for ever.
	if (leased.attempts > MAXIMUM_ATTEMPTS) {
		const detail = `Given up after ${MAXIMUM_ATTEMPTS} attempts, the last of which did not come to an end.`;
		await settleDelivery(database.handle, { id, owner, outcome: "failed", detail, nextAttemptAt: clock.now() });
		log.error("A delivery was given up", { delivery: id, attempts: leased.attempts });
		return;
	}
	const release = keepLease(
		() => renewDeliveryLease(database.handle, { id, owner, until: later(clock.now(), LEASE_SECONDS) }),
		log,
	);
	try {
		const { delivery } = leased;
		const settlement =
			delivery.source === "hub"
				? await handleHubDelivery(context, delivery)
				: await handleGitHubDelivery(context, delivery);
		await release();
		await settleDelivery(database.handle, { id, owner, ...settlement, nextAttemptAt: clock.now() });
		log.info("A delivery was worked on", { delivery: id, ...settlement });
	} catch (error) {
		// Before the last word: should that fail too, the lease runs out and somebody takes the delivery up again.
		await release();
		const isKnown = error instanceof RetryableError || isBrokenConnection(error);
		const limit = isKnown ? MAXIMUM_ATTEMPTS : MAXIMUM_BUG_ATTEMPTS;
		const reason = error instanceof Error ? error.message : String(error);
		if (!isKnown) log.error("A delivery could not be worked on", { delivery: id, error });
		const isOver = error instanceof PermanentError || leased.attempts >= limit;
		const asked = error instanceof RetryableError ? error.retryAfterSeconds : null;
		const seconds = asked ?? Math.min(MAXIMUM_DELAY_SECONDS, 2 ** leased.attempts);
		const nextAttemptAt = later(clock.now(), seconds);
		await settleDelivery(database.handle, {
			id,
			owner,
			outcome: isOver ? "failed" : "pending",
			detail: isOver ? reason : `Attempt ${leased.attempts}: ${reason}`,
			nextAttemptAt,
		});
		if (!isOver) await context.wake({ kind: "delivery", deliveryId: id }, nextAttemptAt);
	}
}
