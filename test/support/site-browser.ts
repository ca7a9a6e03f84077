import assert from "node:assert/strict";
import { consentOnHub } from "./oauth-person.ts";

export type SiteBrowser = {
	readonly cookies: Map<string, string>;
	get(
		path: string,
		options?: { readonly json?: boolean; readonly headers?: Record<string, string> },
	): Promise<Response>;
	/** A form as the browser sends it from a page of the site. */
	post(
		path: string,
		fields?: Readonly<Record<string, string>>,
		headers?: Readonly<Record<string, string>>,
	): Promise<Response>;
	/** The token that the forms of its pages carry. */
	formToken(path?: string): Promise<string>;
	/** Where the site sends it to sign in. */
	beginSignIn(returnTo?: string): Promise<string>;
	/** Goes where the Hub sends it back to. */
	comeBack(address: URL): Promise<Response>;
	signIn(
		user: string,
		options?: { readonly organizations?: readonly string[]; readonly returnTo?: string },
	): Promise<Response>;
};

/** A browser without script: it keeps cookies, follows nothing by itself, and says where a form came from. */
export function siteBrowser(siteUrl: string): SiteBrowser {
	const cookies = new Map<string, string>();

	async function send(path: string, init: RequestInit & { headers: Record<string, string> }): Promise<Response> {
		const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join("; ");
		const response = await fetch(new URL(path, siteUrl), {
			...init,
			redirect: "manual",
			headers: { ...init.headers, ...(cookie === "" ? {} : { Cookie: cookie }) },
		});
		for (const line of response.headers.getSetCookie()) {
			const [pair = "", ...attributes] = line.split(";");
			const [name = "", value = ""] = pair.split("=", 2);
			const isOver = attributes.some((one) => /^\s*expires=Thu, 01 Jan 1970/i.test(one));
			if (isOver) cookies.delete(name);
			else cookies.set(name, value);
		}
		return response;
	}

	const browser: SiteBrowser = {
		cookies,
		get: (path, options = {}) =>
			send(path, {
				headers: { Accept: options.json === true ? "application/json" : "text/html", ...options.headers },
			}),
		post: (path, fields = {}, headers = {}) =>
			send(path, {
				method: "POST",
				body: new URLSearchParams(fields),
				headers: { Accept: "text/html", Origin: new URL(siteUrl).origin, ...headers },
			}),
		async formToken(path = "/") {
			const text = await (await browser.get(path)).text();
			const [, token] = /name="token" value="([^"]+)"/.exec(text) ?? [];
			assert.ok(token !== undefined, "the page has no form");
			return token;
		},
		async beginSignIn(returnTo = "/") {
			const answer = await browser.get(`/auth/sign-in?${new URLSearchParams({ returnTo }).toString()}`);
			assert.equal(answer.status, 303, await answer.text());
			return answer.headers.get("location") ?? "";
		},
		comeBack: (address) => browser.get(`${address.pathname}${address.search}`),
		async signIn(user, options = {}) {
			const there = await browser.beginSignIn(options.returnTo);
			return await browser.comeBack(await consentOnHub(there, user, { organizations: options.organizations ?? [] }));
		},
	};
	return browser;
}
