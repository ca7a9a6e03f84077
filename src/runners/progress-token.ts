import { createHmac, timingSafeEqual } from "node:crypto";
import type { Attempt } from "../records/attempt.ts";

const TOKEN = /^p1\.(\d{1,12})\.([A-Za-z0-9_-]{43})$/;

function sign(key: string, attempt: Attempt, expires: string): Buffer {
	return createHmac("sha256", key).update(`progress\n${attempt.job}\n${attempt.fence}\n${expires}`).digest();
}

/** Lets its holder tell of one attempt's progress until it expires, and do nothing else. */
export function progressToken(key: string, attempt: Attempt, expires: Date): string {
	const seconds = String(Math.floor(expires.getTime() / 1000));
	return `p1.${seconds}.${sign(key, attempt, seconds).toString("base64url")}`;
}

export function isProgressToken(key: string, attempt: Attempt, token: string, now: Date): boolean {
	const [, expires, signature] = TOKEN.exec(token) ?? [];
	if (expires === undefined || signature === undefined) return false;
	const given = Buffer.from(signature, "base64url");
	const wanted = sign(key, attempt, expires);
	return given.length === wanted.length && timingSafeEqual(given, wanted) && Number(expires) * 1000 > now.getTime();
}
