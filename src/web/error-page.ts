import type { ErrorRequestHandler, Request } from "express";
import type { Log } from "../log.ts";
import type { Site } from "./site.ts";

/** What people see of a fault; the fault itself goes to the log. */
export function errorPage(siteOf: (request: Request) => Site, log: Log): ErrorRequestHandler {
	return (error, request, response, next) => {
		if (response.headersSent) {
			next(error);
			return;
		}
		const status = error instanceof URIError ? 400 : 500;
		if (status === 500) log.error("A page could not be made", { path: request.path, error });
		const title = status === 400 ? "That address cannot be read" : "That did not work";
		const text =
			status === 400
				? "A part of the address is not one that this site made."
				: "The fault is on our side and was written to the log. Please try again.";
		siteOf(request).refuse(request, response, { status, title, text });
	};
}
