import { EXIT_CODES } from "./exit-codes.ts";
import type { Terminal } from "./terminal.ts";

export type DemoCommandOptions = {
	readonly exit: boolean;
	readonly keep: boolean;
	readonly port: number | null;
	readonly hubPort: number | null;
	readonly dataDirectory: string | null;
	readonly databaseUrl: string | null;
	readonly json: boolean;
};

/** `yaqa-bot demo`: the script of the demo lives in a folder of its own, which an installation may leave out. */
export async function demo(options: DemoCommandOptions, terminal: Terminal): Promise<number> {
	let program: typeof import("../../demo/demo.ts");
	try {
		program = await import("../../demo/demo.ts");
	} catch (error) {
		if (!(error instanceof Error && "code" in error && error.code === "ERR_MODULE_NOT_FOUND")) throw error;
		terminal.err(`The demo cannot be loaded: ${error.message}\nIt needs the whole checkout and \`npm run setup\`.\n`);
		return EXIT_CODES.failed.code;
	}
	return await program.runDemo({
		exit: options.exit,
		keep: options.keep,
		json: options.json,
		dataDirectory: options.dataDirectory,
		databaseUrl: options.databaseUrl,
		...(options.port === null ? {} : { port: options.port }),
		...(options.hubPort === null ? {} : { hubPort: options.hubPort }),
	});
}
