import { createHash, timingSafeEqual } from "node:crypto";

/** Compares secrets. Both are hashed first, so that neither length nor content shows in the time it takes. */
export function constantTimeEqual(one: string, other: string): boolean {
	const digest = (text: string): Buffer => createHash("sha256").update(text, "utf8").digest();
	return timingSafeEqual(digest(one), digest(other));
}
