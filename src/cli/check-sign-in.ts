import type { Configuration } from "../config/schema.ts";
import type { Secrets } from "../config/secrets.ts";
import { assertNever } from "../errors.ts";
import { signInProviderOf } from "../server/member-pages.ts";
import { broken, type Finding, fine, firstLine, lacking } from "./finding.ts";

/** Whether people can sign in on the pages: what the Hub says of the OAuth app; nothing where none is named. */
export async function checkSignIn(configuration: Configuration, secrets: Secrets): Promise<readonly Finding[]> {
	const name = "Sign-in";
	const setup = signInProviderOf({ configuration, secrets });
	if (setup === null) return [];
	try {
		const answer = await setup.provider.check();
		switch (answer) {
			case "address":
				return [
					broken(
						name,
						"the Hub does not take the app's id, or the address that it is to send people back to",
						`Correct signIn.clientId, and add ${setup.redirectUri} to the app's redirect URLs in the Hub's settings.`,
					),
				];
			case "secret":
				return [
					broken(
						name,
						"the Hub does not take the app's secret",
						"Make a new secret in the app's settings on the Hub, and give it in YAQA_BOT_OAUTH_CLIENT_SECRET.",
					),
				];
			case "fine":
				return setup.publicUrl.startsWith("https:")
					? [fine(name, `the Hub sends people back to ${setup.redirectUri}`)]
					: [
							lacking(
								name,
								"the pages have no https: what signed-in people see and send can be read on the way",
								"Put a TLS proxy in front, and set server.publicUrl to its https address.",
							),
						];
			default:
				return assertNever(answer);
		}
	} catch (error) {
		return [
			broken(name, `the Hub does not answer as a provider: ${firstLine(error)}`, "Check hub.url and the network."),
		];
	}
}
