import { isIP } from "node:net";

/** The public Hub's own domains, its CDN's and Xet's among them. */
const PUBLIC_DOMAINS = ["huggingface.co", "hf.co"] as const;
/**
 * Where the public Hub keeps large files, by the full name of each bucket: the cloud's domain is everybody's, and
 * whoever rents a bucket beside these could be sent what is meant for the Hub.
 */
const PUBLIC_BUCKETS: readonly string[] = [
	"hf-hub-lfs-us-east-1.s3-accelerate.amazonaws.com",
	"hf-hub-lfs-us-east-1.s3.us-east-1.amazonaws.com",
	"hf-hub-lfs-us-east-1.s3.amazonaws.com",
	"hf-hub-lfs-prod.s3.us-east-1.amazonaws.com",
];

/**
 * Whether the bot may send a request to `url`. The Hub's own origin always; when that is the public Hub, also https to
 * the domains and buckets that serve its files; and https to the hosts that the operator named. Everything else is
 * refused: addresses in payloads, cards and redirects come from strangers, and a request to them from inside an
 * operator's network is theirs to aim.
 */
export function isAllowedUrl(url: URL, hubUrl: string, transferHosts: readonly string[] = []): boolean {
	const hub = new URL(hubUrl);
	if (url.username !== "" || url.password !== "") return false;
	if (url.origin === hub.origin) return true;
	// A self-hosted Hub serves its files itself; a local one may name itself by another loopback name or port.
	if (isLoopback(hub.hostname)) return isLoopback(url.hostname) && url.port === hub.port;
	if (url.protocol !== "https:" || isIP(url.hostname.replace(/^\[|\]$/g, "")) !== 0) return false;
	if (transferHosts.includes(url.hostname) && url.port === "") return true;
	const { domains, hosts } = filePlaces(hub);
	return hosts.includes(url.hostname) || domains.some((domain) => isUnder(url.hostname, domain));
}

/** Where a Hub that is no local one keeps files, besides what the operator names. */
function filePlaces({ hostname }: URL): { readonly domains: readonly string[]; readonly hosts: readonly string[] } {
	const isPublic = PUBLIC_DOMAINS.some((domain) => isUnder(hostname, domain));
	return isPublic ? { domains: PUBLIC_DOMAINS, hosts: PUBLIC_BUCKETS } : { domains: [hostname], hosts: [] };
}

/** Where a visitor's browser gets a public repo's files from, as a content security policy lists them. */
export function fileOrigins(hubUrl: string, transferHosts: readonly string[] = []): readonly string[] {
	const hub = new URL(hubUrl);
	if (isLoopback(hub.hostname)) return [hub.origin];
	const { domains, hosts } = filePlaces(hub);
	const places = [...domains.flatMap((domain) => [domain, `*.${domain}`]), ...hosts, ...transferHosts];
	return [...new Set([hub.origin, ...places.map((host) => `https://${host}`)])];
}

function isUnder(host: string, domain: string): boolean {
	return host === domain || host.endsWith(`.${domain}`);
}

function isLoopback(host: string): boolean {
	return host === "localhost" || host === "[::1]" || /^127\.\d+\.\d+\.\d+$/.test(host);
}
