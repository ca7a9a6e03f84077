import { FAULT_FORMS } from "../fault-flag.ts";
import type { HubContext } from "../hub-context.ts";
import { escapeHtml } from "../markdown.ts";

function list(items: readonly string[]): string {
	return `<ul>${items.map((item) => `<li>${item}</li>`).join("")}</ul>`;
}

/** How this Hub is used: who is on it, how clients reach it, what it can be made to do wrong. Tokens are not shown. */
export function aboutPage(context: HubContext): string {
	const origin = escapeHtml(context.origin());
	const people = context.accounts.users().map(({ name, fullname, orgs }) => {
		const roles = [...orgs].map(([org, role]) => `${role} in ${org}`).join(", ");
		return `<a href="/${escapeHtml(name)}">${escapeHtml(name)}</a> (${escapeHtml(fullname)})${roles === "" ? "" : `: ${escapeHtml(roles)}`}`;
	});
	const organizations = context.accounts
		.organizations()
		.map(
			({ name, fullname, members, refusesWebhooks }) =>
				`<a href="/${escapeHtml(name)}">${escapeHtml(name)}</a> (${escapeHtml(fullname)}): ${members.size} members${refusesWebhooks ? ", allows no webhooks" : ""}`,
		);
	const apps = [...context.oauthApps.values()].map(
		({ name, clientId, redirectUris }) =>
			`${escapeHtml(name)} (<code>${escapeHtml(clientId)}</code>), back at ${redirectUris.map((uri) => `<code>${escapeHtml(uri)}</code>`).join(", ")}`,
	);
	const jobs = context.jobs.runsJobs
		? "It runs jobs: as processes of this machine with its rights, whatever image they name."
		: "It runs no jobs. Start it with <code>--jobs FOLDER</code>: what jobs call is looked for there.";
	const faults = escapeHtml(JSON.stringify(context.faults.state(), null, 2));
	return `<h1>About this Hub</h1>
<p>A Hub on this machine, for rehearsals: real HTTP, files on disk, commits, LFS, Xet, webhooks, discussions, collections. Nothing leaves this machine but the webhooks that somebody registered.</p>
<h2>Clients</h2>
<pre>export HF_ENDPOINT=${origin} HF_TOKEN=TOKEN     # hf, huggingface_hub, transformers
hf upload OWNER/MODEL FOLDER</pre>
<p>With <code>@huggingface/hub</code> pass <code>hubUrl: "${origin}"</code> and <code>accessToken</code> to each call. A browser sees public repos; everything else needs a token.</p>
<h2>People</h2>${list(people)}
<h2>Organizations</h2>${organizations.length === 0 ? "<p>None.</p>" : list(organizations)}
<h2>Apps that people sign in to</h2>${apps.length === 0 ? "<p>None. Name them under <code>oauthApps</code> in the file of <code>--users</code>.</p>" : list(apps)}
<h2>Jobs</h2><p>${jobs}</p>
<h2>Faults</h2>
<p>By <code>--fault</code> at the start, or while it runs: <code>POST ${origin}/__local-hub/faults</code> with the admin token that it printed; <code>DELETE</code> ends them. The forms of <code>--fault</code>:</p>
${list(FAULT_FORMS.map((form) => `<code>${escapeHtml(form)}</code>`))}
<p>Armed now:</p><pre>${faults}</pre>`;
}
