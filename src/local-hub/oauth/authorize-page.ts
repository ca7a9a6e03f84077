import type { User } from "../accounts.ts";
import { escapeHtml } from "../markdown.ts";
import { pageLayout } from "../pages/page-layout.ts";
import type { OAuthApp, OAuthScope } from "./oauth-apps.ts";

const SCOPE_WORDS: Readonly<Partial<Record<OAuthScope, string>>> = {
	openid: "know which account you have",
	profile: "read your profile: name, picture, organizations",
	email: "read your e-mail address",
	"read-repos": "read your private repos, and those of the organizations that you choose",
};

/** Who is it, and may the app do that? This Hub has no log-in of its own: whoever sees the page chooses an account. */
export function authorizePage(asked: {
	readonly app: OAuthApp;
	readonly scopes: readonly OAuthScope[];
	readonly users: readonly User[];
	/** Signed, so that the answer is to this question. */
	readonly request: string;
}): string {
	const { app, scopes, users } = asked;
	const wants = scopes.map((scope) => `<li>${escapeHtml(SCOPE_WORDS[scope] ?? scope)}</li>`).join("");
	const people = users.map((user) => {
		const organizations = [...user.orgs.keys()]
			.map(
				(name) =>
					`<label><input type="checkbox" name="organizations" value="${escapeHtml(name)}" checked> ${escapeHtml(name)}</label> `,
			)
			.join("");
		return `<li><form method="post" action="/oauth/authorize"><input type="hidden" name="request" value="${escapeHtml(asked.request)}"><input type="hidden" name="user" value="${escapeHtml(user.name)}"><p><strong>${escapeHtml(user.fullname)}</strong> <span class="muted">${escapeHtml(user.name)}</span> ${organizations}</p><button name="decision" value="allow">Authorize as ${escapeHtml(user.name)}</button></form></li>`;
	});
	return pageLayout(
		`Authorize ${app.name}`,
		`<h1>Authorize ${escapeHtml(app.name)}</h1><p>It wants to:</p><ul>${wants}</ul><h2>Who are you?</h2><ul class="plain">${people.join("")}</ul><form method="post" action="/oauth/authorize"><input type="hidden" name="request" value="${escapeHtml(asked.request)}"><button name="decision" value="deny">Cancel</button></form>`,
	);
}
