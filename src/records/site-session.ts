/** That somebody is signed in on the pages. */
export type SiteSession = {
	/** Of the id that their browser holds. */
	readonly idHash: string;
	/** The account's own number on the Hub: names can change hands. */
	readonly subject: string;
	readonly name: string;
	/** What the Hub gave to read with in their name, sealed with the id itself. */
	readonly sealedToken: string;
	readonly signedInAt: Date;
	readonly expiresAt: Date;
};
