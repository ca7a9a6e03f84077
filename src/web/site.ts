import type { Request, Response } from "express";
import type { DataScope } from "../db/data-version.ts";
import { summarizeVariant, type VariantSummary } from "../publish/variant-summary.ts";
import type { JobRecord } from "../records/job.ts";
import type { VariantRecord } from "../records/variant.ts";
import type { WebData } from "./data.ts";
import { type Answer, createAnswer, createKeptAnswers } from "./kept-answers.ts";
import { createSharedReads } from "./shared-reads.ts";
import type { Viewer } from "./sign-in/viewer.ts";
import type { PageContext } from "./views/layout.ts";
import { messagePage } from "./views/message-page.ts";

/** Rows of one page of a list. */
export const PAGE_ROWS = 25;

/** Shorter ones gain nothing. */
const LEAST_PACKED = 1024;

/** What a page shows, for programs and for people. */
type Content = { readonly twin: unknown; readonly page: () => string };

type Shared = {
	/** All that the content depends on besides the data. */
	readonly key: readonly unknown[];
	readonly make: () => Promise<Content | null>;
	/** What is said where there is no content. */
	readonly missing?: string;
};

/** What the routes of pages are built with. */
export type Site = {
	readonly data: WebData;
	/** Who looks; `null`: nobody that is known. */
	readonly viewer: () => Viewer | null;
	/** What every page shows around its own content. */
	readonly context: () => PageContext;
	readonly summarize: (variants: readonly VariantRecord[]) => VariantSummary[];
	/** The page, or its JSON twin at the same address. */
	readonly reply: (request: Request, response: Response, twin: unknown, page: () => string) => void;
	/** The same, made once for all who wait for it: begun after they asked. */
	readonly replyShared: (request: Request, response: Response, shared: Shared) => Promise<void>;
	/** The same, kept as long as what it was made of stands, where everybody gets the same. */
	readonly replyKept: (
		request: Request,
		response: Response,
		kept: Shared & { readonly scope: DataScope },
	) => Promise<void>;
	/** As `replyKept`, for what is neither a page nor has a twin. */
	readonly sendKept: (
		request: Request,
		response: Response,
		kept: {
			readonly scope: DataScope;
			readonly key: readonly unknown[];
			readonly type: string;
			readonly make: () => Promise<string>;
		},
	) => Promise<void>;
	/** Answers that something is not so, in words. */
	readonly refuse: (
		request: Request,
		response: Response,
		refusal: { readonly status: number; readonly title: string; readonly text: string },
	) => void;
	readonly notFound: (request: Request, response: Response, text: string) => void;
};

/** Where this site is reached, as far as the request tells. */
export function baseOf(request: Request): string {
	return `${request.protocol}://${request.host}`;
}

export function createSite(options: {
	readonly data: WebData;
	readonly hubUrl: string;
	readonly context: () => PageContext;
}): Site {
	const { data, hubUrl, context } = options;
	// One site's alone: what one audience sees never comes out of another's.
	const answers = createKeptAnswers(() => context().now.getTime());
	const readVersion = createSharedReads<string | null>();
	const readAnswer = createSharedReads<Answer | null>();

	function wantsJson(request: Request): boolean {
		return request.accepts(["html", "json"]) === "json";
	}

	function answerOf(json: boolean, { twin, page }: Content): Answer {
		return json ? createAnswer("json", JSON.stringify(twin)) : createAnswer("html", page());
	}

	function send(request: Request, response: Response, answer: Answer): void {
		response.vary("Accept");
		if (response.get("Cache-Control") === undefined) response.set("Cache-Control", "no-cache");
		sendPacked(request, response, answer);
	}

	/** What certain eyes alone may see is sent as it is, as everywhere here. */
	function sendPacked(request: Request, response: Response, { type, body, packed }: Answer): void {
		const isPacked =
			body.length >= LEAST_PACKED &&
			response.get("Cache-Control") !== "no-store" &&
			request.acceptsEncodings("gzip") === "gzip";
		if (isPacked) response.set("Content-Encoding", "gzip");
		response.type(type).send(isPacked ? packed() : body);
	}

	async function keptAnswer(
		scope: DataScope,
		key: readonly unknown[],
		make: () => Promise<Answer | null>,
	): Promise<Answer | null> {
		const of = JSON.stringify(scope);
		const version = await readVersion(of, () => data.version(scope));
		return version === null ? await make() : await answers.get({ key: JSON.stringify([of, key]), version, make });
	}

	async function replyOnce(
		request: Request,
		response: Response,
		{ key, make, missing = "There is no such page." }: Shared,
		answerBy: (key: readonly unknown[], make: () => Promise<Answer | null>) => Promise<Answer | null>,
	): Promise<void> {
		const json = wantsJson(request);
		const answer = await answerBy([json, ...key], async () => {
			const content = await make();
			return content === null ? null : answerOf(json, content);
		});
		if (answer === null) notFound(request, response, missing);
		else send(request, response, answer);
	}

	const reply: Site["reply"] = (request, response, twin, page) =>
		send(request, response, answerOf(wantsJson(request), { twin, page }));

	const refuse: Site["refuse"] = (request, response, { status, title, text }) => {
		response.status(status);
		reply(request, response, { error: text }, () => messagePage(context(), { title, text }));
	};

	const notFound: Site["notFound"] = (request, response, text) =>
		refuse(request, response, { status: 404, title: "Not found", text });

	return {
		data,
		viewer: () => context().viewer,
		context,
		reply,
		replyShared: async (request, response, shared) =>
			await replyOnce(request, response, shared, (key, make) => readAnswer(JSON.stringify(key), make)),
		replyKept: async (request, response, kept) =>
			await replyOnce(request, response, kept, (key, make) => keptAnswer(kept.scope, key, make)),
		async sendKept(request, response, { scope, key, type, make }) {
			const answer = await keptAnswer(scope, [type, ...key], async () => createAnswer(type, await make()));
			if (answer !== null) sendPacked(request, response, answer);
		},
		summarize: (variants) => variants.map((variant) => summarizeVariant(variant, hubUrl)),
		refuse,
		notFound,
	};
}

/** A job as the JSON twins show it: without the handle by which its runner knows the run. */
export function jobJson(job: JobRecord): unknown {
	const { runnerHandle: _kept, ...shown } = job;
	return shown;
}
