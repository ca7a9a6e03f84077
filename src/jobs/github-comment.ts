import { z } from "zod";

const Repository = z.object({ full_name: z.string().max(200) });
const IssueNumber = z.object({ number: z.int().min(1) });
const Author = z.object({ type: z.string().max(40) });
const CommentPayload = z.object({
	action: z.string(),
	repository: Repository,
	issue: IssueNumber,
	comment: z.object({ id: z.int().min(1), user: Author.nullish() }),
});
const IssuePayload = z.object({ action: z.string(), repository: Repository, issue: IssueNumber });

export type GitHubComment =
	| {
			readonly kind: "comment";
			readonly repository: string;
			readonly issue: number;
			/** `null`: the issue's opening message. */
			readonly comment: number | null;
	  }
	| { readonly kind: "ignored"; readonly reason: string };

function ignored(reason: string): GitHubComment {
	return { kind: "ignored", reason };
}

/** What GitHub's events `issue_comment` and `issues` are about. Their text is a hint: the issue is read again. */
export function readGitHubComment(event: "issue_comment" | "issues", payload: unknown): GitHubComment {
	if (event === "issues") {
		const parsed = IssuePayload.safeParse(payload);
		if (!parsed.success) return ignored("The body is not one of GitHub's about an issue.");
		const { action, repository, issue } = parsed.data;
		if (action !== "opened" && action !== "edited") return ignored("No message was written.");
		return { kind: "comment", repository: repository.full_name, issue: issue.number, comment: null };
	}
	const parsed = CommentPayload.safeParse(payload);
	if (!parsed.success) return ignored("The body is not one of GitHub's about a comment.");
	const { action, repository, issue, comment } = parsed.data;
	// An edited comment is read again: what is new in it is run.
	if (action !== "created" && action !== "edited") return ignored("It was taken away.");
	if (comment.user?.type === "Bot") return ignored("A bot wrote it.");
	return { kind: "comment", repository: repository.full_name, issue: issue.number, comment: comment.id };
}
