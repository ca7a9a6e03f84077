import type { Terminal } from "../../src/cli/terminal.ts";

/** Keeps what a command prints; `onOut` sees each piece as it comes. */
export function recordingTerminal(
	onOut: (text: string) => void = () => {},
): Terminal & { said(): { readonly out: string; readonly err: string } } {
	let out = "";
	let err = "";
	return {
		out: (text) => {
			out += text;
			onOut(text);
		},
		err: (text) => {
			err += text;
		},
		isScreen: false,
		columns: () => 80,
		said: () => ({ out, err }),
	};
}
