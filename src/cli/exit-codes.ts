/** What the program's exit status says, for scripts. */
export const EXIT_CODES = {
	ok: { code: 0, meaning: "it worked" },
	failed: { code: 1, meaning: "it failed; the message says why" },
	usage: { code: 2, meaning: "the command line or the configuration is wrong" },
	refused: { code: 3, meaning: "the model is refused: missing, gated, unsafe, unknown or not allowed" },
	unverified: { code: 4, meaning: "files were made or found, but did not pass verification" },
	interrupted: { code: 75, meaning: "interrupted by a signal" },
} as const;

export type ExitCode = (typeof EXIT_CODES)[keyof typeof EXIT_CODES]["code"];

export function exitCodeList(): string {
	return Object.values(EXIT_CODES)
		.map(({ code, meaning }) => `  ${String(code).padEnd(4)}${meaning}`)
		.join("\n");
}
