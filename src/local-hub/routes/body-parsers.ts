import express, { type RequestHandler } from "express";

/** JSON of any JSON content type: LFS sends `application/vnd.git-lfs+json`. */
export const jsonBody: RequestHandler = express.json({
	limit: "8mb",
	type: ["application/json", "application/*+json"],
	strict: false,
});

/** The Python client sends `paths-info` as a form, a field a path. */
export const formBody: RequestHandler = express.urlencoded({ extended: false, limit: "8mb", parameterLimit: 50_000 });
