import { z } from "zod";

/** A text in an address, without what a database does not take or nobody sees. */
export function textParameter(most: number) {
	return z
		.string()
		.transform((written) =>
			written
				.replaceAll(/[\p{Cc}\p{Cs}]/gu, "")
				.trim()
				.slice(0, most),
		)
		.catch("")
		.default("");
}
