import { isIP } from "node:net";

/** Hosts the public Hub sends file transfers to: its own domains and its object stores. */
const PUBLIC_TRANSFER_DOMAINS = ["huggingface.co", "hf.co", "amazonaws.com", "cloudfront.net"] as const;

/**
 * Whether the bot may send a request to `url`. The Hub's own origin always; when that is the public Hub, also https to
 * the domains that serve its files. Everything else is refused: addresses in payloads, cards and redirects come from
 * strangers, and a request to them from inside an operator's network is theirs to aim.
 */
export function isAllowedUrl(url: URL, hubUrl: string): boolean {
	const hub = new URL(hubUrl);
	if (url.username !== "" || url.password !== "") return false;
	if (url.origin === hub.origin) return true;
	// A self-hosted Hub serves its files itself; a local one may name itself by another loopback name or port.
	if (isLoopback(hub.hostname)) return isLoopback(url.hostname) && url.port === hub.port;
	if (url.protocol !== "https:" || isIP(url.hostname.replace(/^\[|\]$/g, "")) !== 0) return false;
	const hubIsPublic = PUBLIC_TRANSFER_DOMAINS.some((domain) => isUnder(hub.hostname, domain));
	if (hubIsPublic) return PUBLIC_TRANSFER_DOMAINS.some((domain) => isUnder(url.hostname, domain));
	return isUnder(url.hostname, hub.hostname);
}

function isUnder(host: string, domain: string): boolean {
	return host === domain || host.endsWith(`.${domain}`);
}

function isLoopback(host: string): boolean {
	return host === "localhost" || host === "[::1]" || /^127\.\d+\.\d+\.\d+$/.test(host);
}
