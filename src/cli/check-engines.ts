import type { Configuration } from "../config/schema.ts";
import { judgeWithLlamaCpp, LLAMA_CPP_REMEDY } from "../verify/llama-cpp-judge.ts";
import { broken, type Finding, fine, lacking } from "./finding.ts";

const LIMITS = { milliseconds: 180_000, memoryBytes: 2e9, threads: 1 } as const;

/** The engines that judge finished files before they are published. */
export async function checkEngines(configuration: Configuration): Promise<Finding> {
	const name = "llama.cpp";
	const verdict = await judgeWithLlamaCpp({ modelPath: null, verificationPath: null, limits: LIMITS });
	switch (verdict.kind) {
		case "loaded":
		case "measured":
			return fine(name, `${verdict.version}: judges GGUF files before they are published`);
		case "refused":
		case "missing":
			return configuration.verification.unmeasured === "allow"
				? lacking(
						name,
						`${verdict.reason}: GGUF files are published unmeasured, and their cards say so`,
						LLAMA_CPP_REMEDY,
					)
				: broken(name, `${verdict.reason}: no GGUF file can be published`, LLAMA_CPP_REMEDY);
	}
}
