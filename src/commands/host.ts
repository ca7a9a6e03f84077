import type { ReplyTo } from "../records/request.ts";
import type { Place } from "./forum.ts";

/** Where people write. */
export type Host = "hub" | "github";

/** The same name is another person on another host. */
export function requesterName(host: Host, name: string): string {
	return host === "hub" ? name : `${host}:${name}`;
}

export function hostOf(replyTo: ReplyTo): Host {
	return replyTo.github === undefined ? "hub" : "github";
}

export function placeOf(replyTo: ReplyTo, sourceRepo: string): Place {
	return { repo: replyTo.github ?? sourceRepo, thread: replyTo.discussion };
}
