/** Somebody with an account on the Hub, as it says who they are. */
export type Person = {
	/** The account's own number: names can change hands. */
	readonly subject: string;
	readonly name: string;
	/** The organisations that they belong to. */
	readonly organizations: readonly string[];
};
