import { spawn } from "node:child_process";
import { once } from "node:events";
import { dirname, join } from "node:path";
import { cleanEnvironment, StackError, venvPython } from "./stack.ts";

/** Pushes a folder with the stock Python client's `hf upload`, as a publisher would. The token travels by environment. */
export async function pushWithHfUpload(params: {
	readonly hubUrl: string;
	readonly token: string;
	readonly repo: string;
	readonly folder: string;
	readonly message: string;
	/** A place of its own for the client's caches. */
	readonly cacheDirectory: string;
}): Promise<void> {
	const child = spawn(
		join(dirname(venvPython), "hf"),
		["upload", params.repo, params.folder, ".", "--commit-message", params.message],
		{
			stdio: ["ignore", "pipe", "pipe"],
			env: cleanEnvironment({
				HF_ENDPOINT: params.hubUrl,
				HF_TOKEN: params.token,
				HF_HOME: params.cacheDirectory,
				HF_HUB_DISABLE_PROGRESS_BARS: "1",
				HF_HUB_DISABLE_TELEMETRY: "1",
				NO_COLOR: "1",
			}),
		},
	);
	let output = "";
	for (const stream of [child.stdout, child.stderr]) {
		stream.setEncoding("utf8");
		stream.on("data", (text: string) => {
			output = (output + text).slice(-4000);
		});
	}
	const [code] = await once(child, "close");
	if (code !== 0) throw new StackError(`"hf upload ${params.repo}" ended with status ${code}:\n${output}`);
}
