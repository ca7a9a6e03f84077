import { z } from "zod";

/** A word that can follow an @ in a comment. */
export const commandWord = z
	.string()
	.regex(/^[A-Za-z0-9][A-Za-z0-9-]{0,41}$/, "letters, digits and minus, such as yaqa-bot");
