import type { Replier } from "../jobs/ports.ts";
import type { CommentHandler } from "./comment-handler.ts";
import { hostOf } from "./host.ts";

/** Handles comments of both hosts; `github`: `null` where none of its repos is configured. */
export function joinCommentHandlers(hub: CommentHandler, github: CommentHandler | null): CommentHandler {
	return (hint) => {
		if (hint.host !== "github") return hub(hint);
		if (github !== null) return github(hint);
		return Promise.resolve({ outcome: "ignored", detail: "No GitHub repo is configured." });
	};
}

/** Writes answers on both hosts; `github` as above. */
export function joinRepliers(hub: Replier, github: Replier | null): Replier {
	return (request) => {
		const { replyTo } = request.request;
		if (replyTo === null || hostOf(replyTo) === "hub") return hub(request);
		if (github !== null) return github(request);
		// The repo was taken out of the configuration: the answer stays as it is.
		return Promise.resolve({ replyCommentId: replyTo.replyCommentId });
	};
}
