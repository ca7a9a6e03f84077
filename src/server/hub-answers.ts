import type { ReplyOptions } from "../commands/answer-options.ts";
import { hubForum } from "../commands/hub-forum.ts";
import { hubSubject } from "../commands/hub-subject.ts";
import { HUB_WORDS } from "../commands/replies/reply-context.ts";
import type { Configuration } from "../config/schema.ts";
import type { HubAccess } from "../hub/hub-access.ts";
import { ownAccount } from "../hub/own-account.ts";

/** How discussions on the Hub are read and answered, by the bot's account. */
export function discussionForum(
	configuration: Configuration,
	hub: HubAccess & { readonly accessToken: string },
): Pick<ReplyOptions, "forum" | "subjectOf" | "context"> {
	const account = ownAccount(hub);
	return {
		forum: hubForum({ hub, botUserId: async () => (await account()).id }),
		subjectOf: hubSubject,
		context: {
			...HUB_WORDS,
			hubUrl: configuration.hub.url,
			siteUrl: configuration.server.publicUrl,
			botName: configuration.hub.mention,
		},
	};
}
