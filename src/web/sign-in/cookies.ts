import type { Request, Response } from "express";

/** What a cookie of ours may hold. */
const VALUE = /^[A-Za-z0-9_-]{1,4000}$/;

export type CookieJar = {
	readonly read: (request: Request) => string | null;
	readonly write: (response: Response, value: string, seconds: number) => void;
	readonly clear: (response: Response) => void;
};

/**
 * One cookie that scripts cannot read and other sites' forms do not bring along. Under https its name keeps other hosts of
 * the same domain from setting it.
 */
export function createCookie(name: string, isSecure: boolean): CookieJar {
	const full = isSecure ? `__Host-${name}` : name;
	const options = { httpOnly: true, secure: isSecure, sameSite: "lax", path: "/" } as const;
	return {
		read(request) {
			for (const part of (request.get("cookie") ?? "").split(";")) {
				const [key = "", value = ""] = part.trim().split("=", 2);
				if (key === full) return VALUE.test(value) ? value : null;
			}
			return null;
		},
		write: (response, value, seconds) => {
			response.cookie(full, value, { ...options, maxAge: seconds * 1000 });
		},
		clear: (response) => {
			response.clearCookie(full, options);
		},
	};
}
