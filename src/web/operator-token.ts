import type { Request } from "express";
import { constantTimeEqual } from "./constant-time-equal.ts";

/** Whether a request carries the operator's token: as a bearer, or as the password of a browser's own question. */
export function isSentBy(request: Request, token: string | null): boolean {
	if (token === null) return false;
	const [scheme = "", value = ""] = (request.get("authorization") ?? "").split(" ", 2);
	switch (scheme.toLowerCase()) {
		case "bearer":
			return constantTimeEqual(value, token);
		case "basic": {
			const [, password = ""] = /^[^:]*:(.*)$/s.exec(Buffer.from(value, "base64").toString("utf8")) ?? [];
			return constantTimeEqual(password, token);
		}
		default:
			return false;
	}
}
