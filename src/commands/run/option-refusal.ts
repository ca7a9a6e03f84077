import type { ParsedCommand } from "../parse/parsed-command.ts";

/** Options that the bot understands and does not grant, with who decides. */
export function optionRefusal(
	command: ParsedCommand & { kind: "quantize" | "plan" },
	calibration: string,
): { readonly message: string; readonly remedy: string } | null {
	if (command.private) {
		return {
			message: "Variants are as public as the model they are made of: of a public model I make public ones only.",
			remedy: "Leave out the word private. Variants of a private repo are private without it.",
		};
	}
	if (command.calibration !== null && command.calibration !== "default" && command.calibration !== calibration) {
		return {
			message: `This bot calibrates on ${calibration === "self" ? "texts sampled from the model itself" : "texts that its operator chose"}, and no other choice is open to comments.`,
			remedy: `Leave out calibration=… or write calibration=default; the operator of this bot decides with quantization.calibration.`,
		};
	}
	return null;
}
