import { renderStatus } from "../replies/render-status.ts";
import type { CommandRun } from "./effect.ts";

export async function status({ options, source, context }: CommandRun<"status">): Promise<string> {
	return renderStatus(context, { repo: source, ...(await options.statusOf(source)) });
}
