import { z } from "zod";

const Account = z.object({ id: z.int(), login: z.string(), type: z.string() });
const App = z.object({ id: z.int() });

/** What this project reads of an issue's comment. */
export const IssueComment = z.object({
	id: z.int(),
	body: z.string().nullish(),
	user: Account.nullable(),
	created_at: z.string(),
	updated_at: z.string(),
	/** Ends in `/issues/N`. */
	issue_url: z.string().optional(),
	performed_via_github_app: App.nullish(),
});
export type IssueComment = z.infer<typeof IssueComment>;

/** What this project reads of an issue; its opening message is the body. */
export const Issue = z.object({
	number: z.int(),
	title: z.string(),
	body: z.string().nullish(),
	user: Account.nullable(),
	locked: z.boolean(),
	created_at: z.string(),
	updated_at: z.string(),
	performed_via_github_app: App.nullish(),
});
export type Issue = z.infer<typeof Issue>;
