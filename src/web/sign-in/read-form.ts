import type { Request, Response } from "express";
import { constantTimeEqual } from "../constant-time-equal.ts";
import { readBody } from "../read-body.ts";
import type { Site } from "../site.ts";
import type { Viewer } from "./viewer.ts";

const MAXIMUM_BYTES = 10_000;

/** Whether a browser says that a page of another site sent this. */
function comesFromElsewhere(request: Request, origin: string): boolean {
	const from = request.get("origin");
	if (from !== undefined) return from !== origin;
	const site = request.get("sec-fetch-site");
	return site !== undefined && site !== "same-origin";
}

/**
 * What stands before everything that a form of this site changes: somebody is signed in, the form came from one of their
 * own pages here, by the browser's word and by the token that only those have. `null`: it did not, and that was answered.
 */
export async function readForm(
	site: Site,
	request: Request,
	response: Response,
	origin: string | null,
): Promise<{ readonly viewer: Viewer; readonly form: URLSearchParams } | null> {
	const refuse = (status: number, title: string, text: string): null => {
		// Its body was not read: the connection cannot be used again.
		response.set("Connection", "close");
		site.refuse(request, response, { status, title, text });
		return null;
	};
	const viewer = site.viewer();
	if (viewer === null || origin === null) {
		return refuse(401, "Sign in first", "That takes an account: sign in, and try again.");
	}
	if (comesFromElsewhere(request, origin)) {
		return refuse(403, "Not from here", "That form came from another site. Nothing was changed.");
	}
	if (!request.is("application/x-www-form-urlencoded")) {
		return refuse(415, "Not a form", "Send a form: application/x-www-form-urlencoded.");
	}
	const bytes = await readBody(request, MAXIMUM_BYTES);
	if (bytes === null) return refuse(413, "Too long", `A form has at most ${MAXIMUM_BYTES} bytes.`);
	const form = new URLSearchParams(bytes.toString("utf8"));
	if (!constantTimeEqual(form.get("token") ?? "", viewer.formToken)) {
		return refuse(
			403,
			"That page is too old",
			"You signed in or out since it was opened, or it is not one of yours. Nothing was changed: open the page anew and try again.",
		);
	}
	return { viewer, form };
}
