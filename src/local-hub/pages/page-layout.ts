import { escapeHtml } from "../markdown.ts";

const STYLE = `
:root{color-scheme:light dark;--line:#8884;--soft:#8882;--accent:#1f6feb}
*{box-sizing:border-box}
body{margin:0;font:16px/1.55 system-ui,sans-serif}
header,main,footer{max-width:60rem;margin:0 auto;padding:1rem 1.25rem}
header{display:flex;gap:1rem;align-items:baseline;border-bottom:1px solid var(--line)}
header a{font-weight:600;text-decoration:none}
footer{color:#888;font-size:.85rem}
a{color:var(--accent)}
h1{font-size:1.6rem;margin:.6rem 0}
h1 small{font-weight:400;font-size:.9rem}
nav.tabs{display:flex;gap:1rem;margin:.5rem 0 1rem;border-bottom:1px solid var(--line);padding-bottom:.5rem}
ul.plain{list-style:none;padding:0}
ul.plain li{padding:.45rem 0;border-bottom:1px solid var(--soft)}
.tag{display:inline-block;background:var(--soft);border-radius:1rem;padding:.05rem .6rem;margin:.1rem .2rem .1rem 0;font-size:.8rem}
.muted{color:#888;font-size:.88rem}
table{border-collapse:collapse;display:block;overflow-x:auto;max-width:100%}
th,td{border:1px solid var(--line);padding:.3rem .6rem;text-align:left}
table.files{display:table;width:100%}
table.files td{border-width:0 0 1px}
table.files td:nth-child(2){text-align:right;white-space:nowrap}
pre{background:var(--soft);padding:.8rem;border-radius:.4rem;overflow-x:auto}
code{font-family:ui-monospace,monospace;font-size:.9em}
img{max-width:100%}
article.comment{border:1px solid var(--line);border-radius:.5rem;margin:1rem 0}
article.comment>div.head{background:var(--soft);padding:.4rem .8rem;font-size:.9rem}
article.comment>div.body{padding:.2rem .8rem}
.event{color:#888;font-size:.9rem;margin:.6rem 0 .6rem 1rem}
`;

/** One whole page. `content` is HTML made by this folder; everything from outside in it is escaped there. */
export function pageLayout(title: string, content: string): string {
	return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>${escapeHtml(title)}</title><style>${STYLE}</style></head>
<body><header><a href="/">Local Hub</a><span class="muted">a Hugging Face Hub on this machine</span></header>
<main>${content}</main>
<footer>Public repos only: this site has no log-in. Everything else goes through the API with a token.</footer>
</body></html>`;
}

export function bytesText(bytes: number): string {
	const units = ["B", "kB", "MB", "GB", "TB"];
	let value = bytes;
	let unit = 0;
	while (value >= 1000 && unit < units.length - 1) {
		value /= 1000;
		unit++;
	}
	return `${unit === 0 ? value : value.toFixed(value < 10 ? 2 : 1)} ${units[unit] ?? ""}`;
}
