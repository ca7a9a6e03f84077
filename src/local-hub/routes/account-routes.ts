import { Router } from "express";
import { type HubContext, identityOf, parameter, requireIdentity } from "../hub-context.ts";
import { HubError } from "../hub-error.ts";
import { escapeHtml } from "../markdown.ts";
import { avatarUrl, userOverview, whoAmI } from "../people.ts";

/** Who one is, users and organizations. */
export function accountRoutes(context: HubContext): Router {
	const router = Router();
	const startedAt = context.clock.now().toISOString();

	router.get("/api/whoami-v2", (request, response) => {
		response.json(whoAmI(context, requireIdentity(context, request), startedAt));
	});

	router.get("/api/users/:user/overview", (request, response) => {
		identityOf(context, request);
		const user = context.accounts.user(parameter(request, "user"));
		if (user === null) throw new HubError(404, "User not found");
		response.json(userOverview(context, user, startedAt));
	});

	router.get("/api/organizations/:name/overview", (request, response) => {
		const organization = context.accounts.organization(parameter(request, "name"));
		if (organization === null) throw new HubError(404, "Organization not found");
		response.json({
			_id: organization.id,
			name: organization.name,
			fullname: organization.fullname,
			avatarUrl: avatarUrl(context, organization.name),
			type: "org",
			numUsers: organization.members.size,
		});
	});

	router.get("/api/organizations/:name/members", (request, response) => {
		const identity = identityOf(context, request);
		const organization = context.accounts.organization(parameter(request, "name"));
		if (organization === null) throw new HubError(404, "Organization not found");
		const member = identity !== null && organization.members.has(identity.user.name);
		response.json(
			[...organization.members].map(([name, role]) => ({
				_id: context.accounts.user(name)?.id ?? "",
				avatarUrl: avatarUrl(context, name),
				fullname: context.accounts.user(name)?.fullname ?? name,
				isPro: false,
				user: name,
				type: "user",
				...(member ? { role } : {}),
			})),
		);
	});

	router.get("/avatars/:file", (request, response) => {
		const name = parameter(request, "file").replace(/\.svg$/, "");
		let hue = 0;
		for (const character of name) hue = (hue * 31 + (character.codePointAt(0) ?? 0)) % 360;
		const letter = escapeHtml([...name][0]?.toUpperCase() ?? "?");
		response.set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox");
		response
			.type("image/svg+xml")
			.send(
				`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 40"><rect width="40" height="40" rx="20" fill="hsl(${hue} 55% 45%)"/><text x="20" y="27" font-family="sans-serif" font-size="20" fill="#fff" text-anchor="middle">${letter}</text></svg>`,
			);
	});
	return router;
}
