/** Where a command writes. Passed in, so that tests can look. */
export type Terminal = {
	/** Results: tables for people, the JSON document. */
	readonly out: (text: string) => void;
	/** Progress and messages. */
	readonly err: (text: string) => void;
	/** Whether `err` is a screen that lines can be redrawn on. */
	readonly isScreen: boolean;
	readonly columns: () => number;
};

/** Control characters of file names and messages must not drive the terminal. */
export function printable(text: string): string {
	return text.replaceAll(/[\u0000-\u0008\u000B-\u001F\u007F-\u009F\u202A-\u202E\u2066-\u2069]/g, "\uFFFD");
}

/** The narrowest terminal that texts are made for. */
const TEXT_COLUMNS = 80;

/** `text` broken at spaces, its first line after `start`, the others indented as far. A longer word stays whole. */
export function wrapped(start: string, text: string, indent = start.length): string {
	const lines: string[] = [];
	let line = start;
	let isEmpty = true;
	for (const word of text.split(" ")) {
		if (!isEmpty && line.length + 1 + word.length > TEXT_COLUMNS) {
			lines.push(line);
			line = " ".repeat(indent) + word;
		} else line = isEmpty ? line + word : `${line} ${word}`;
		isEmpty = false;
	}
	return [...lines, line].join("\n");
}

export function table(rows: readonly (readonly string[])[], alignRight: readonly number[] = []): string {
	const widths: number[] = [];
	for (const row of rows) {
		for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 0, cell.length);
	}
	return rows
		.map((row) =>
			row
				.map((cell, column) =>
					alignRight.includes(column) ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0),
				)
				.join("  ")
				.trimEnd(),
		)
		.join("\n");
}
