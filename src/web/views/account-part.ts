import { type Html, html } from "../html.ts";
import type { Viewer } from "../sign-in/viewer.ts";

/** The field by which a form of ours is known. */
export function formTokenField(viewer: Viewer): Html {
	return html`<input type="hidden" name="token" value="${viewer.formToken}">`;
}

/** At the end of the header: who is signed in, or where to. */
export function accountPart(context: { readonly signIn: boolean; readonly viewer: Viewer | null }): Html | null {
	const { viewer } = context;
	if (viewer !== null) {
		return html`<form class="account" method="post" action="/auth/sign-out">${formTokenField(viewer)}<span>${viewer.name}</span> <button class="plain" type="submit">Sign out</button></form>
${!viewer.isCertain && html`<p class="note" role="status">The Hub does not answer just now: your private models are not shown.</p>\n`}`;
	}
	return context.signIn ? html`<p class="account"><a href="/auth/sign-in" rel="nofollow">Sign in</a></p>\n` : null;
}
