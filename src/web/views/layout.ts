import { type Html, html } from "../html.ts";
import type { Viewer } from "../sign-in/viewer.ts";
import { accountPart } from "./account-part.ts";

export type Assets = {
	readonly css: string;
	readonly liveScript: string;
	readonly tryScript: string;
	/** With the modules that it imports. */
	readonly tryWorker: string;
};

/** What every page is told besides its own content. */
export type PageContext = {
	readonly botName: string;
	readonly hubUrl: string;
	readonly version: string;
	readonly now: Date;
	readonly assets: Assets;
	/** Whether people can sign in here. */
	readonly signIn: boolean;
	/** Who looks; `null`: nobody that is known. */
	readonly viewer: Viewer | null;
};

type Section = "models" | "variants" | "jobs" | "help" | "deliveries" | "my" | "operator" | null;

/** What other sites show where somebody links to the page. Addresses are whole: those sites read them elsewhere. */
type Preview = { readonly description: string; readonly address: string; readonly picture: string | null };

function previewTags(title: string, { description, address, picture }: Preview): Html {
	return html`<meta name="description" content="${description}">
<meta property="og:type" content="website">
<meta property="og:title" content="${title}">
<meta property="og:description" content="${description}">
<meta property="og:url" content="${address}">
${
	picture !== null &&
	html`<meta property="og:image" content="${picture}">
<meta property="og:image:alt" content="Size of the files against their KL to the original">
<meta name="twitter:card" content="summary_large_image">
`
}`;
}

/** One whole document. `live`: loads the script that follows the job's events; without it the page reloads itself. */
export function renderPage(
	context: PageContext,
	page: {
		readonly title: string;
		readonly section: Section;
		readonly main: Html;
		readonly live?: boolean;
		/** Another script's address. */
		readonly script?: string;
		readonly preview?: Preview;
	},
): string {
	const links: readonly { readonly section: Section; readonly href: string; readonly label: string }[] = [
		{ section: "models", href: "/", label: "Models" },
		{ section: "jobs", href: "/jobs", label: "Jobs" },
		{ section: "help", href: "/help", label: "Help" },
		...(context.viewer === null ? [] : [{ section: "my", href: "/my", label: "My models" } as const]),
		...(context.viewer?.isOperator === true
			? [{ section: "operator", href: "/operator", label: "Operator" } as const]
			: []),
	];
	const document = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${page.title} · yaqa-bot</title>
${page.preview !== undefined && previewTags(page.title, page.preview)}<link rel="icon" href="/assets/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="${context.assets.css}">
${
	page.live === true &&
	html`<script src="${context.assets.liveScript}" defer></script>
<noscript><meta http-equiv="refresh" content="5"></noscript>`
}${page.script !== undefined && html`<script src="${page.script}" defer></script>`}
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header class="site">
<a class="brand" href="/"><svg viewBox="0 0 32 32" width="24" height="24" aria-hidden="true"><use href="/assets/icon.svg#mark"></use></svg> yaqa-bot</a>
<nav aria-label="Main"><ul>
${links.map((link) => html`<li><a href="${link.href}"${link.section === page.section && html` aria-current="page"`}>${link.label}</a></li>`)}
</ul></nav>
${accountPart(context)}</header>
<main id="main" tabindex="-1">
${page.main}
</main>
<footer class="site">
<p>yaqa-bot ${context.version}</p>
<p><a href="${context.hubUrl}">The Hub</a> · <a href="/about">About</a> · <a href="/feed.atom">Feed</a> · <a href="/deliveries">Deliveries</a> · <a href="/readyz">Health</a></p>
</footer>
</body>
</html>
`;
	return document.markup;
}
