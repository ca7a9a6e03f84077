import { z } from "zod";
import table from "../../config/recipes.json" with { type: "json" };

/** Containers a variant can be written in. */
export const Container = z.enum(["gguf", "onnx", "compressed-tensors", "gptq", "mlx"]);
export type Container = z.infer<typeof Container>;

/** What a short recipe name stands for. */
const RecipeName = z
	.strictObject({
		name: z.string().regex(/^[a-z0-9:_]{1,32}$/),
		container: Container,
		/** Bits of one stored code, scales not counted. 0: a budget of bytes, where only the finished files tell. */
		bits: z.int().min(0).max(8),
		/** Weights that share one scale when the recipe does not say. `null`: fixed by the container. */
		defaultGroup: z.int().nullable(),
		groups: z.array(z.int()).readonly(),
		/** Stored bits per quantized weight at the default group, scales counted. */
		bitsPerWeight: z.number(),
		/** Whether `zero=on` gives every group a zero point. */
		zeroPoints: z.boolean(),
		/** Bits that `embedding=q4` and the like can give embedding and output layer. Empty: the container decides. */
		embeddingBits: z.array(z.int()).readonly(),
		/**
		 * Types that the linears of a GGUF recipe can have, the one of most of them first; those that stand in where rows
		 * do not fit aside. Empty elsewhere.
		 */
		types: z.array(z.string()).readonly(),
	})
	.readonly();
export type RecipeName = z.infer<typeof RecipeName>;

const RecipeTable = z
	.strictObject({
		maximumCharacters: z.int(),
		/** Keys of the options that may follow a recipe's name. */
		options: z.array(z.enum(["group", "block", "refine", "tune", "zero", "embedding", "bpw", "bytes"])).readonly(),
		refineSweeps: z.strictObject({ default: z.int(), most: z.int() }).readonly(),
		mixed: z
			.strictObject({
				/** The name of recipes that give every linear a type of its own, within `bpw` bits a weight or `bytes` of files. */
				name: z.string(),
				leastBitsPerWeight: z.number(),
				mostBitsPerWeight: z.number(),
				/** The two budgets that a mix can have, as people write them. */
				examples: z.array(z.string()).readonly(),
			})
			.readonly(),
		/** Other spellings: names of earlier versions, each with what llama-quantize makes of it, and short forms. */
		otherNames: z.record(z.string(), z.string()).readonly(),
		names: z.array(RecipeName).min(1).readonly(),
	})
	.readonly();

/** `config/recipes.json`: feeds the parser, the planner, the help text, and the runner's own parser. */
export const RECIPES: z.infer<typeof RecipeTable> = RecipeTable.parse(table);
export const RECIPE_NAMES: readonly RecipeName[] = RECIPES.names;
