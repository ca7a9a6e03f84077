import { createHash } from "node:crypto";

export function digestOf(text: string): Buffer {
	return createHash("sha256").update(text, "utf8").digest();
}
