import { createCipheriv, createDecipheriv, createHash, createHmac, hkdfSync, randomBytes } from "node:crypto";

const ALGORITHM = "aes-256-gcm";
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

function keyOf(secret: string, purpose: string): Buffer {
	return Buffer.from(hkdfSync("sha256", secret, "yaqa-bot", purpose, 32));
}

/** Encrypts, so that only who has the secret reads it, and nobody changes it unnoticed. */
export function seal(secret: string, purpose: string, text: string): string {
	const nonce = randomBytes(NONCE_BYTES);
	const cipher = createCipheriv(ALGORITHM, keyOf(secret, purpose), nonce);
	const body = Buffer.concat([cipher.update(text, "utf8"), cipher.final()]);
	return Buffer.concat([nonce, cipher.getAuthTag(), body]).toString("base64url");
}

/** `null`: it was not sealed with this secret for this purpose. */
export function unseal(secret: string, purpose: string, sealed: string): string | null {
	const bytes = Buffer.from(sealed, "base64url");
	if (bytes.byteLength < NONCE_BYTES + TAG_BYTES) return null;
	const decipher = createDecipheriv(ALGORITHM, keyOf(secret, purpose), bytes.subarray(0, NONCE_BYTES));
	decipher.setAuthTag(bytes.subarray(NONCE_BYTES, NONCE_BYTES + TAG_BYTES));
	try {
		const text = Buffer.concat([decipher.update(bytes.subarray(NONCE_BYTES + TAG_BYTES)), decipher.final()]);
		return text.toString("utf8");
	} catch {
		return null;
	}
}

/** A session's id, for its browser alone. */
export function newSessionId(): string {
	return randomBytes(32).toString("base64url");
}

/** What the database knows a session by. */
export function sessionHash(id: string): string {
	return createHash("sha256").update(id, "utf8").digest("hex");
}

/** What forms carry, so that only pages of this session can send them. */
export function formToken(id: string): string {
	return createHmac("sha256", id).update("form").digest("base64url");
}
