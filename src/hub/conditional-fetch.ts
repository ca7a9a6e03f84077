type Kept = { readonly etag: string; readonly body: ArrayBuffer; readonly headers: Headers };

const MAXIMUM_ANSWERS = 500;
const MAXIMUM_BODY_BYTES = 2 * 2 ** 20;

/**
 * A `fetch` that asks again for the same address with `If-None-Match` and gives the answer it has when the Hub says 304:
 * looking over an unchanged namespace costs headers only. Answers live in memory, oldest dropped first; they belong to
 * one token, so that this is made once for each.
 */
export function conditionalFetch(send: typeof fetch): typeof fetch {
	const kept = new Map<string, Kept>();
	return async (input, init) => {
		const method = init?.method ?? "GET";
		if (method !== "GET" || input instanceof Request) return await send(input, init);
		const address = String(input);
		const known = kept.get(address);
		const headers = new Headers(init?.headers);
		if (known !== undefined) {
			headers.set("if-none-match", known.etag);
			// Otherwise `fetch` adds "no-cache", at which servers give the whole answer in spite of the tag.
			headers.set("cache-control", "max-age=0");
		}
		const response = await send(input, { ...init, headers });
		if (response.status === 304 && known !== undefined) {
			await response.body?.cancel();
			return named(new Response(known.body.slice(0), { status: 200, headers: known.headers }), address);
		}
		const etag = response.headers.get("etag");
		if (response.status !== 200 || etag === null) return response;
		const body = await response.arrayBuffer();
		kept.delete(address);
		if (body.byteLength <= MAXIMUM_BODY_BYTES) {
			kept.set(address, { etag, body, headers: response.headers });
			const [oldest] = kept.keys();
			if (kept.size > MAXIMUM_ANSWERS && oldest !== undefined) kept.delete(oldest);
		}
		return named(new Response(body.slice(0), { status: 200, headers: response.headers }), response.url);
	};
}

/** `@huggingface/hub` reads where an answer came from. */
function named(response: Response, url: string): Response {
	Object.defineProperty(response, "url", { value: url });
	return response;
}
