import { z } from "zod";

/** What a reaction is on: a comment, or an issue's opening message. */
export type ReactedTo = { readonly comment: number } | { readonly issue: number };

export type ReactionContent = "eyes" | "rocket" | "confused";

export const Reaction = z.object({
	id: z.int(),
	content: z.string(),
	user: z.object({ id: z.int() }).nullable(),
});
export type Reaction = z.infer<typeof Reaction>;

/** Where GitHub keeps them. */
export function reactionsOf(to: ReactedTo): {
	readonly path: string;
	readonly parameters: Readonly<Record<string, number>>;
} {
	return "comment" in to
		? {
				path: "/repos/{owner}/{repo}/issues/comments/{comment_id}/reactions",
				parameters: { comment_id: to.comment },
			}
		: { path: "/repos/{owner}/{repo}/issues/{issue_number}/reactions", parameters: { issue_number: to.issue } };
}
