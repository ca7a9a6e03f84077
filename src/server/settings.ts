import type { Configuration } from "../config/schema.ts";
import type { Secrets } from "../config/secrets.ts";

/** What the bot is built from. */
export type Settings = {
	readonly configuration: Configuration;
	readonly secrets: Secrets;
	/** The token of the bot's account, without which there is nothing to serve. */
	readonly publisherToken: string;
};
