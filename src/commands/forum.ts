/** Where people write to the bot: a discussion on the Hub, an issue on GitHub. */
export type Place = {
	/** The repo that the thread belongs to, as its host names it. */
	readonly repo: string;
	readonly thread: number;
};

export type Author = {
	/** The account's own number: names can change hands. */
	readonly id: string | null;
	readonly name: string;
	/**
	 * Whether the host says, at this moment, that they own the repo, belong to its organisation or may write to it;
	 * `null`: it does not say so with the comment and has to be asked.
	 */
	readonly trusted: boolean | null;
	/** Whether the host says that it is a program. */
	readonly robot: boolean;
};

export type Comment = {
	readonly id: string;
	readonly author: Author | null;
	readonly text: string;
};

export type Thread = {
	/** The opening message's subject; `null` where it is of no use to a program. */
	readonly title: string | null;
	/** Visible ones, oldest first; the opening message is the first. */
	readonly comments: readonly Comment[];
	/** Nobody but those who may write to the repo can comment. */
	readonly locked: boolean;
};

/**
 * One host of threads. Writing gives `null` where the host refuses it (locked, gone, blocked); other failures are thrown,
 * so that the comment is looked at again.
 */
export type Forum = {
	/** The bot's account, by its number. */
	botId(): Promise<string>;
	/** Asks the host about an author whose rights it did not tell. */
	isTrusted(place: Place, author: Author): Promise<boolean>;
	/** `null`: gone, or not for us to see. */
	read(place: Place): Promise<Thread | null>;
	post(place: Place, text: string): Promise<{ readonly id: string } | null>;
	edit(place: Place, commentId: string, text: string): Promise<{ readonly id: string } | null>;
	/** A sign on the comment itself that it was read, where the host has such. */
	acknowledge(place: Place, commentId: string, sign: "seen" | "done" | "refused"): Promise<void>;
};
