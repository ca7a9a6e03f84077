import { z } from "zod";

const count = z.int().min(0).max(1e12);

/** What of a model's configuration says how much memory a run of it takes, its weights aside. */
export const ModelShape = z.object({
	architecture: z.string().max(200),
	/** Widths of the residual stream and of what one token uses of the feed-forward layer. */
	hidden: count,
	feedForward: count,
	vocabulary: count,
	layers: count,
	/** Tokens that it was trained for; `null`: the configuration does not say. */
	contextLength: count.nullable(),
	/** Layers whose cache grows with the context: numbers that each keeps of one token as keys and as values. */
	attention: z
		.array(
			z.object({
				layers: count,
				keyWidth: count,
				valueWidth: count,
				/** Tokens that a layer looks back; `null`: all. */
				window: count.nullable(),
			}),
		)
		.max(1_000),
	/** Numbers that layers with a state keep of a whole text, all of them together. */
	stateWidth: count,
});
export type ModelShape = z.infer<typeof ModelShape>;
