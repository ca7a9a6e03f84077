import { createHmac, timingSafeEqual } from "node:crypto";

/** Signs short-lived permissions that travel in a URL or stand as a bearer token, for clients that send no other. */
export type UrlSigner = {
	sign(purpose: string, fields: readonly string[], secondsValid: number): string;
	/** The fields, when the text was signed here for this purpose and has not run out. */
	verify(purpose: string, text: string): readonly string[] | null;
};

export function createUrlSigner(key: Uint8Array, nowMilliseconds: () => number): UrlSigner {
	const mac = (purpose: string, body: string): Buffer =>
		createHmac("sha256", key).update(`${purpose}\n${body}`).digest();
	return {
		sign(purpose, fields, secondsValid) {
			const expires = Math.floor(nowMilliseconds() / 1000) + secondsValid;
			const body = Buffer.from(JSON.stringify([expires, ...fields])).toString("base64url");
			return `${body}.${mac(purpose, body).toString("base64url")}`;
		},
		verify(purpose, text) {
			const dot = text.indexOf(".");
			const body = text.slice(0, dot);
			const given = Buffer.from(text.slice(dot + 1), "base64url");
			const right = mac(purpose, body);
			if (dot < 1 || given.byteLength !== right.byteLength || !timingSafeEqual(given, right)) return null;
			const content: unknown = JSON.parse(Buffer.from(body, "base64url").toString("utf8"));
			if (!Array.isArray(content)) return null;
			const [expires, ...fields] = content;
			if (typeof expires !== "number" || expires * 1000 < nowMilliseconds()) return null;
			return fields.filter((field): field is string => typeof field === "string");
		},
	};
}
