import { sameName } from "./same-name.ts";

/** People whom the operator lets ask on any model, and accounts that are never answered. */
export type NamedPeople = { readonly allow: readonly string[]; readonly ignore: readonly string[] };

function isNamed(names: readonly string[], name: string): boolean {
	return names.some((one) => sameName(one, name));
}

/** Accounts that are programs by their host's word, by their name's usual ending, or by the operator's list. */
export function isRobot(author: { readonly name: string; readonly robot: boolean }, people: NamedPeople): boolean {
	if (isNamed(people.allow, author.name)) return false;
	return author.robot || /[-_.[]bots?\]?$/i.test(author.name) || isNamed(people.ignore, author.name);
}

/** Whether somebody has rights in a repo by what its host says of them, or by the operator's word. */
export function hasRights(name: string, hostSaysSo: boolean, people: Pick<NamedPeople, "allow">): boolean {
	return hostSaysSo || isNamed(people.allow, name);
}

/** People without rights in the repo may cancel what they alone asked for. `requesters`: `null` for pushes and sweeps. */
export function mayCancel(trusted: boolean, own: string, requesters: readonly (string | null)[]): boolean {
	if (trusted) return true;
	return requesters.length > 0 && requesters.every((name) => name !== null && sameName(name, own));
}

/** A run costs, whoever asked for the first one: only people with rights try again. */
export function mayRetry(trusted: boolean): boolean {
	return trusted;
}

/** What a job costs above the ceiling is the operator's to decide. */
export function mayApprove(isOperator: boolean): boolean {
	return isOperator;
}
