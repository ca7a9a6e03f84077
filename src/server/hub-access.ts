import type { Configuration } from "../config/schema.ts";
import type { Secrets } from "../config/secrets.ts";
import type { HubAccess } from "../hub/hub-access.ts";
import { createHubFetch } from "../hub/hub-fetch.ts";

function access(configuration: Configuration, token: string | null): HubAccess {
	const { url: hubUrl, transferHosts } = configuration.hub;
	return {
		hubUrl,
		fetch: createHubFetch({ hubUrl, transferHosts }),
		...(token === null ? {} : { accessToken: token }),
	};
}

/** Reads sources; never the publisher's token, unless it is the only one. */
export function readAccess(configuration: Configuration, secrets: Secrets): HubAccess {
	return access(configuration, secrets.readToken ?? secrets.publisherToken);
}

/** Writes quantized repos and discussions. */
export function publisherAccess(configuration: Configuration, secrets: Secrets): HubAccess {
	return access(configuration, secrets.publisherToken);
}
