import { Agent, get, type IncomingMessage } from "node:http";
import { z } from "zod";

/**
 * People who follow one job, in a process of their own. Arguments: the stream's address, how many. By IPC it says when
 * all of them are there; told the numbers of some events, it answers how many have got every one of them, once.
 */
const [address = "", count = ""] = process.argv.slice(2);
const agent = new Agent({ keepAlive: true, maxSockets: Number.POSITIVE_INFINITY });
/** Held, so that their streams are not closed with them. */
const responses: IncomingMessage[] = [];
const seen: number[][] = [];

function watch(): Promise<void> {
	return new Promise((resolve, reject) => {
		get(address, { agent, headers: { Accept: "text/event-stream" } }, (response) => {
			if (response.statusCode !== 200) {
				reject(new Error(`${address} answered ${response.statusCode}.`));
				return;
			}
			responses.push(response);
			const own: number[] = [];
			seen.push(own);
			let rest = "";
			response.setEncoding("utf8").on("data", (text: string) => {
				const lines = `${rest}${text}`.split("\n");
				rest = lines.pop() ?? "";
				for (const line of lines) {
					const [, number] = /^id: (\d+)$/.exec(line) ?? [];
					if (number !== undefined) own.push(Number(number));
				}
			});
			response.once("data", () => resolve());
		}).on("error", reject);
	});
}

for (let index = 0; index < Number(count); index++) await watch();
process.send?.({ watching: seen.length });

const Question = z.object({ first: z.int(), last: z.int() });
process.on("message", async (message) => {
	const { first, last } = Question.parse(message);
	for (let turn = 0; turn < 200 && seen.some((numbers) => (numbers.at(-1) ?? 0) < last); turn++) {
		await new Promise((resolve) => setTimeout(resolve, 100));
	}
	const wanted = Array.from({ length: last - first + 1 }, (_, index) => first + index).join();
	const reached = seen.filter(
		(numbers) => numbers.filter((number) => number >= first && number <= last).join() === wanted,
	);
	process.send?.({ reached: reached.length });
});
process.on("disconnect", () => process.exit(0));
