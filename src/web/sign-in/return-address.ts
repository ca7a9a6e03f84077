/** Longer addresses are none of this site's pages. */
const MAXIMUM_LENGTH = 2000;

/** Where on this site somebody goes on after signing in; the catalogue for what is elsewhere, or no page to come back to. */
export function returnAddress(asked: string | null, publicUrl: string): string {
	const origin = new URL(publicUrl).origin;
	if (asked === null || asked.length > MAXIMUM_LENGTH || !asked.startsWith("/") || !URL.canParse(asked, origin)) {
		return "/";
	}
	const address = new URL(asked, origin);
	const { pathname } = address;
	// "/.//elsewhere" has the path "//elsewhere", which a browser takes for another host.
	if (address.origin !== origin || pathname.startsWith("//") || pathname.startsWith("/auth/")) return "/";
	return `${pathname}${address.search}`;
}
