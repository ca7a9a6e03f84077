import type { Router } from "express";
import express from "express";
import { z } from "zod";
import { MODEL_SORTS } from "../../db/catalogue.ts";
import { readFitQuestion } from "../../fit/fit-question.ts";
import { parseByteSize } from "../../protocol/byte-size.ts";
import { Container } from "../../protocol/recipe-table.ts";
import { searchWords } from "../search-words.ts";
import { PAGE_ROWS, type Site } from "../site.ts";
import { textParameter } from "../text-parameter.ts";
import { type CatalogueState, cataloguePage, PARAMETER_CLASSES, PERIODS } from "../views/catalogue-page.ts";

const DAY_MILLISECONDS = 86_400_000;

/** Addresses are written and shared by people: what does not parse counts as not given. */
const CatalogueParameters = z.object({
	q: textParameter(200),
	container: Container.or(z.literal("")).catch("").default(""),
	bits: z
		.string()
		.regex(/^[1-9]\d?$/)
		.catch("")
		.default(""),
	family: textParameter(100),
	license: textParameter(100),
	parameters: z
		.enum(PARAMETER_CLASSES.map(([name]) => name))
		.or(z.literal(""))
		.catch("")
		.default(""),
	size: z
		.string()
		.max(12)
		.refine((size) => parseByteSize(size) !== null)
		.catch("")
		.default(""),
	fits: textParameter(100),
	since: z
		.enum(PERIODS.map(([name]) => name))
		.or(z.literal(""))
		.catch("")
		.default(""),
	sort: z.enum(MODEL_SORTS).catch("newest").default("newest"),
	cursor: z.string().min(1).max(1000).nullable().catch(null),
});

/** `GET /`: every model that something is published of. */
export function catalogueRoutes(site: Site): Router {
	const router = express.Router();
	router.get("/", async (request, response) => {
		const { cursor, ...state } = CatalogueParameters.parse(request.query) satisfies CatalogueState & {
			cursor: unknown;
		};
		const parameters = PARAMETER_CLASSES.find(([name]) => name === state.parameters);
		const days = PERIODS.find(([name]) => name === state.since)?.[2];
		const machine = state.fits === "" ? null : readFitQuestion(state.fits);
		const make = async () => {
			const list = await site.data.listModels({
				words: searchWords(state.q),
				container: state.container === "" ? null : state.container,
				bits: state.bits === "" ? null : Number(state.bits),
				family: state.family === "" ? null : state.family,
				license: state.license === "" ? null : state.license,
				parameters: parameters === undefined ? null : [parameters[2], parameters[3]],
				mostBytes: state.size === "" ? null : parseByteSize(state.size),
				fitsBytes: machine?.ok === true ? machine.question.memory : null,
				since: days === undefined ? null : new Date(site.context().now.getTime() - days * DAY_MILLISECONDS),
				sort: state.sort,
				cursor,
				limit: PAGE_ROWS,
			});
			const { models, facets, similar } = list;
			return {
				twin: { models: list.page.items, count: models, facets, similar, nextCursor: list.page.next },
				page: () =>
					cataloguePage(site.context(), state, cursor, {
						...list,
						misread: machine?.ok === false ? machine.message : null,
					}),
			};
		};
		await site.replyKept(request, response, { scope: { kind: "catalogue" }, key: ["/", state, cursor], make });
	});
	return router;
}
