import { assertNever } from "../../errors.ts";
import { parsedRecipes } from "../../protocol/recipe.ts";
import { requesterName } from "../host.ts";
import { renderNotPermitted, renderQuota, renderWaiting } from "../replies/render-permission.ts";
import { renderRefusal } from "../replies/render-refusal.ts";
import { renderRequest } from "../replies/render-request.ts";
import { requestStateOf, stateWord } from "../request-state.ts";
import { type CommandRun, type Effect, passing } from "./effect.ts";
import { optionRefusal } from "./option-refusal.ts";

/** What keeps a stranger's request from being recorded now; `null`: nothing. */
async function holdStranger(run: CommandRun<"quantize">): Promise<Effect | null> {
	const { command, options, at, context } = run;
	const effect = (text: string, report: string) => passing(command, text, `quantize: ${report}`);
	const { name } = at.author;
	switch (options.strangers) {
		case "refuse":
			return { ...effect(renderNotPermitted(context, name), "refused: no rights in the repo"), state: "refused" };
		case "approval":
			return {
				...effect(renderWaiting(context, name, command), "waits for approval"),
				state: "waiting",
				waits: true,
			};
		case "public": {
			const own = await options.countRequests(requesterName(options.host, name));
			const all = await options.countRequests(null);
			const { perPersonPerDay, perDay } = options.quota;
			if (own < perPersonPerDay && all < perDay) return null;
			const over = own >= perPersonPerDay ? { asked: own, limit: perPersonPerDay } : { asked: all, limit: perDay };
			return { ...effect(renderQuota(context, over), "refused: quota"), state: "refused" };
		}
		default:
			return assertNever(options.strangers);
	}
}

/** Records a request, if the author may make it. */
export async function quantize(run: CommandRun<"quantize">): Promise<Effect> {
	const { command, options, at } = run;
	const refused = optionRefusal(command, options.calibration);
	if (refused !== null) {
		return { ...passing(command, renderRefusal(refused), "quantize: refused: an option"), state: "refused" };
	}
	if (at.trusted || at.approved) return await record(run);
	// Others may ask at the same moment in other threads: nobody counts between another's count and request.
	return await options.alone("the public queue", async () => (await holdStranger(run)) ?? (await record(run)));
}

async function record({ command, options, at, context, source }: CommandRun<"quantize">): Promise<Effect> {
	const { host } = options;
	const outcome = await options.recordRequest({
		kind: "comment",
		sourceRepo: source,
		...(command.revision === null ? {} : { revision: command.revision }),
		recipes: parsedRecipes(command.recipes),
		requester: requesterName(host, at.author.name),
		replyTo: {
			...(host === "github" ? { github: at.place.repo } : {}),
			discussion: at.place.thread,
			commentId: at.comment.id,
			replyCommentId: at.replyCommentId,
		},
		// An edited comment that asks for something else is another request; the same line again is not.
		dedupeKey: `${host === "hub" ? "" : `${host}:`}comment:${at.place.repo}:${at.place.thread}:${at.comment.id}:${command.key}`,
	});
	const state = requestStateOf(outcome);
	return {
		section: {
			key: command.key,
			request: state.request.id,
			lasting: true,
			text: renderRequest(context, state),
		},
		report: `quantize: ${stateWord(state)}`,
		request: state.request,
		state: stateWord(state),
		waits: false,
	};
}
