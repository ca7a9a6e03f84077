import { HubWebhookBody } from "../hub/webhook-body.ts";
import { repoName } from "../protocol/job-spec.ts";

type HubEvent =
	| { readonly kind: "push"; readonly repo: string }
	| {
			readonly kind: "comment";
			readonly repo: string;
			readonly discussion: number;
			readonly commentId: string;
			/** The author's number, by which the bot's own comments are passed over without asking the Hub. */
			readonly authorId: string | null;
	  }
	/** A discussion was closed, reopened or renamed. */
	| { readonly kind: "discussion"; readonly repo: string; readonly discussion: number }
	/** Its visibility or gating may have changed, or it was renamed or deleted. */
	| { readonly kind: "settings"; readonly repo: string }
	| { readonly kind: "ignored"; readonly reason: string };

function ignored(reason: string): HubEvent {
	return { kind: "ignored", reason };
}

/** What a stored delivery is about. `ref`: the branch whose pushes count. */
export function readHubEvent(body: unknown, ref: string): HubEvent {
	const parsed = HubWebhookBody.safeParse(body);
	if (!parsed.success) return ignored("The body is not a Hub webhook's.");
	const { event, repo, updatedRefs, discussion, comment } = parsed.data;
	if (repo.type !== "model") return ignored(`It is about a ${repo.type.slice(0, 20)}, not a model.`);
	const name = repoName.safeParse(repo.name);
	if (!name.success) return ignored("The repo's name is not one.");
	const scope = event.scope;
	if (scope === "repo.content" || scope.startsWith("repo.content.")) {
		const moved = updatedRefs?.find((updated) => updated.ref === ref);
		if (moved === undefined) return ignored(`It does not touch ${ref}.`);
		if (moved.newSha === null) return ignored(`${ref} was deleted.`);
		return { kind: "push", repo: name.data };
	}
	if (scope === "repo.config" || scope.startsWith("repo.config.") || (scope === "repo" && event.action !== "create")) {
		return { kind: "settings", repo: name.data };
	}
	if (scope === "discussion" || scope.startsWith("discussion.comment")) {
		// An edited comment is read again: what is new in it is run.
		if (event.action !== "create" && event.action !== "update") return ignored("It was taken away.");
		if (discussion === undefined) return ignored("It carries no discussion.");
		if (comment === undefined) {
			return scope === "discussion" && event.action === "update"
				? { kind: "discussion", repo: name.data, discussion: discussion.num }
				: ignored("It carries no comment.");
		}
		if (comment.hidden === true) return ignored("The comment is hidden.");
		return {
			kind: "comment",
			repo: name.data,
			discussion: discussion.num,
			commentId: comment.id,
			authorId: comment.author?.id ?? null,
		};
	}
	return ignored(`Nothing is done for ${scope.slice(0, 60)} ${event.action.slice(0, 20)}.`);
}
