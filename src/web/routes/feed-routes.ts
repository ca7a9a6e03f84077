import type { Router } from "express";
import express from "express";
import { formatBytes, formatEstimate } from "../../publish/figures.ts";
import { type Html, html } from "../html.ts";
import { baseOf, type Site } from "../site.ts";

const FEED_ENTRIES = 50;
/** The protocol allows 50,000 addresses a file. */
const SITEMAP_PAGES = 200;
const PAGE_MODELS = 200;
/** When an empty feed was last updated: a time of its own each time would make it new each time. */
const NOTHING_YET = "1970-01-01T00:00:00Z";
const DECLARATION = '<?xml version="1.0" encoding="utf-8"?>\n';
const EVERYTHING = {
	words: [],
	container: null,
	bits: null,
	family: null,
	license: null,
	parameters: null,
	mostBytes: null,
	fitsBytes: null,
	since: null,
	sort: "newest",
} as const;

/** What programs ask for that go through the site: which pages they may read, which there are, and what is new. */
export function feedRoutes(site: Site): Router {
	const router = express.Router();

	async function sitemap(base: string): Promise<string> {
		const entries: Html[] = ["/", "/variants", "/jobs", "/help", "/about"].map(
			(path) => html`<url><loc>${base + path}</loc></url>\n`,
		);
		let cursor: string | null = null;
		for (let page = 0; page < SITEMAP_PAGES; page++) {
			const list = await site.data.listModels({ ...EVERYTHING, cursor, limit: PAGE_MODELS });
			for (const model of list.page.items) {
				entries.push(html`<url><loc>${`${base}/m/${model.repo}`}</loc><lastmod>${model.publishedAt}</lastmod></url>\n`);
			}
			cursor = list.page.next;
			if (cursor === null) break;
		}
		return (
			DECLARATION + html`<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n${entries}</urlset>\n`.markup
		);
	}

	async function feed(base: string): Promise<string> {
		const query = { search: null, container: null, bits: null, sort: "newest", cursor: null } as const;
		const { items } = await site.data.listPublishedVariants({ ...query, limit: FEED_ENTRIES });
		const variants = site.summarize(items);
		const newest = variants[0]?.publishedAt ?? NOTHING_YET;
		const document = html`<feed xmlns="http://www.w3.org/2005/Atom">
<title>Quantized models, measured</title><id>${base}/feed.atom</id><updated>${newest}</updated>
<link rel="self" href="${base}/feed.atom"/><link href="${base}/"/><author><name>${site.context().botName}</name></author>
${variants.map((variant) => {
	const size = variant.bytes === null ? "" : `, ${formatBytes(variant.bytes)}`;
	const kl = variant.klNats === null ? "" : `, KL ${formatEstimate(variant.klNats)} nats a token`;
	return html`<entry><title>${variant.source.repo}: ${variant.recipe}</title><id>urn:uuid:${variant.id}</id><updated>${variant.publishedAt ?? newest}</updated>
<link href="${`${base}/v/${variant.id}`}"/><summary>${`${variant.repo}${size}${kl}`}</summary></entry>
`;
})}</feed>
`;
		return DECLARATION + document.markup;
	}

	router.get("/robots.txt", (request, response) => {
		response
			.type("text/plain")
			.send(
				`User-agent: *\nDisallow: /deliveries\nDisallow: /metrics\nDisallow: /auth/\nDisallow: /my\nDisallow: /operator\nDisallow: /jobs/*/events\nSitemap: ${baseOf(request)}/sitemap.xml\n`,
			);
	});

	for (const [path, type, make] of [
		["/sitemap.xml", "application/xml", sitemap],
		["/feed.atom", "application/atom+xml", feed],
	] as const) {
		router.get(path, async (request, response) => {
			const base = baseOf(request);
			await site.sendKept(request, response, {
				scope: { kind: "catalogue" },
				key: [path, base],
				type,
				make: () => make(base),
			});
		});
	}
	return router;
}

/** Whoever writes to a page is told that it can only be read. */
export function readOnly(siteOf: (request: express.Request) => Site): express.RequestHandler {
	return (request, response, next) => {
		if (request.method === "GET" || request.method === "HEAD" || request.method === "OPTIONS") {
			next();
			return;
		}
		response.set("Allow", "GET, HEAD");
		siteOf(request).refuse(request, response, {
			status: 405,
			title: "Not allowed",
			text: "This address can only be read.",
		});
	};
}
