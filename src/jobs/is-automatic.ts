import type { RequestKind } from "../records/request.ts";
/** Requests that nobody made: they never try again what failed before, else every sweep would. */
export function isAutomatic(kind: RequestKind): boolean {
	switch (kind) {
		case "push":
		case "sweep":
			return true;
		case "comment":
		case "api":
		case "cli":
			return false;
	}
}
