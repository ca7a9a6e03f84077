import { whoAmI } from "@huggingface/hub";
import type { ReplyOptions } from "../commands/answer-options.ts";
import { hubForum } from "../commands/hub-forum.ts";
import { hubSubject } from "../commands/hub-subject.ts";
import { HUB_WORDS } from "../commands/replies/reply-context.ts";
import type { Configuration } from "../config/schema.ts";
import type { HubAccess } from "../hub/hub-access.ts";

/** How discussions on the Hub are read and answered, by the bot's account. */
export function discussionForum(
	configuration: Configuration,
	hub: HubAccess & { readonly accessToken: string },
): Pick<ReplyOptions, "forum" | "subjectOf" | "context"> {
	let botUserId: string | null = null;
	return {
		forum: hubForum({
			hub,
			botUserId: async () => {
				// An account's id never changes; asking once is enough.
				botUserId ??= (await whoAmI(hub)).id;
				return botUserId;
			},
		}),
		subjectOf: hubSubject,
		context: {
			...HUB_WORDS,
			hubUrl: configuration.hub.url,
			siteUrl: configuration.server.publicUrl,
			botName: configuration.hub.mention,
		},
	};
}
