/** `broken`: the bot cannot work so. `lacking`: it works, with less. */
export type Finding = {
	readonly name: string;
	readonly state: "fine" | "lacking" | "broken";
	readonly detail: string;
	readonly remedy: string | null;
};

export function fine(name: string, detail: string): Finding {
	return { name, state: "fine", detail, remedy: null };
}
export function lacking(name: string, detail: string, remedy: string): Finding {
	return { name, state: "lacking", detail, remedy };
}
export function broken(name: string, detail: string, remedy: string): Finding {
	return { name, state: "broken", detail, remedy };
}

export function firstLine(error: unknown): string {
	return (error instanceof Error ? error.message : String(error)).split("\n", 1)[0] ?? "";
}
