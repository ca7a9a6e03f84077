/** Whether a sentence says no more than the state: "Done." of a job that is done. */
export function isSaid(state: string, sentence: string): boolean {
	return sentence.replace(/\.$/, "").toLowerCase() === state;
}
