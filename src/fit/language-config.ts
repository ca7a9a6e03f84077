import { z } from "zod";

type Config = Readonly<Record<string, unknown>>;

/** Where an image-text model's config keeps the sizes of its language model, what stands outside counting as well. */
export function languageConfigOf(config: Config): Config {
	const { text_config: text, ...outer } = config;
	const inner = z.looseObject({}).safeParse(text);
	return inner.success ? { ...outer, ...inner.data, architectures: outer["architectures"] } : config;
}
