import type { CommentHandler, Replier } from "../jobs/ports.ts";
import { hostOf } from "./host.ts";

type Answers = { readonly handleComment: CommentHandler; readonly reply: Replier };

/** Answers on both hosts; `github`: `null` where none of its repos is configured. */
export function joinAnswers(hub: Answers, github: Answers | null): Answers {
	return {
		handleComment: (hint) => {
			if (hint.host !== "github") return hub.handleComment(hint);
			if (github !== null) return github.handleComment(hint);
			return Promise.resolve({ outcome: "ignored", detail: "No GitHub repo is configured." });
		},
		reply: (request) => {
			const replyTo = request.request.replyTo;
			if (replyTo === null || hostOf(replyTo) === "hub") return hub.reply(request);
			if (github !== null) return github.reply(request);
			// The repo was taken out of the configuration: the answer stays as it is.
			return Promise.resolve({ replyCommentId: replyTo.replyCommentId });
		},
	};
}
