import type { Clock } from "../clock.ts";
import { createJobControl, type JobControl } from "../commands/job-control.ts";
import { jobRequests } from "../commands/job-requests.ts";
import { runIsolation } from "../config/run-isolation.ts";
import { runnerEnvironment } from "../config/runner-environment.ts";
import { listLine, spentSince } from "../db/admission.ts";
import type { Database } from "../db/database.ts";
import { deleteSiteSession, getSiteSession, insertSiteSession } from "../db/site-sessions.ts";
import { listPrivateSources } from "../db/visibility.ts";
import { replayDelivery } from "../deliveries/replay-delivery.ts";
import { createHubFetch } from "../hub/hub-fetch.ts";
import { listPrivateModels, personOfToken } from "../hub/person-of-token.ts";
import { createSignInProvider } from "../hub/sign-in-provider.ts";
import { monthStart } from "../jobs/admission.ts";
import { approveJob } from "../jobs/approve-job.ts";
import type { JobsContext } from "../jobs/context.ts";
import { measureIsolation } from "../runners/isolation.ts";
import { databaseData } from "../web/database-data.ts";
import type { Metrics } from "../web/metrics.ts";
import type { OperatorData } from "../web/operator-data.ts";
import { CALLBACK_PATH } from "../web/routes/sign-in-routes.ts";
import type { SignInSetup } from "../web/sign-in/create-sign-in.ts";
import { answerRecords, commentSettings } from "./comment-records.ts";
import type { Settings } from "./settings.ts";

/** Somebody waits for their page: the Hub is asked once, and not for long. */
const ASK_MILLISECONDS = 5000;
const MOST_PRIVATE_SOURCES = 5000;
const ISOLATION_MINUTES = 10;

/** The Hub as who says who people are; `null` where that is not set up. */
export function signInProviderOf({ configuration, secrets }: Pick<Settings, "configuration" | "secrets">) {
	const { clientId } = configuration.signIn;
	const { publicUrl } = configuration.server;
	const { oauthClientSecret } = secrets;
	if (clientId === null || publicUrl === null || oauthClientSecret === null) return null;
	const redirectUri = `${publicUrl}${CALLBACK_PATH}`;
	const app = { hubUrl: configuration.hub.url, clientId, clientSecret: oauthClientSecret, redirectUri };
	return { provider: createSignInProvider(app), publicUrl, secret: oauthClientSecret, redirectUri };
}

/** Signing in with an account of the Hub; `null` where it is not set up. */
export function signInOf(settings: Settings, database: Database, clock: Clock): SignInSetup | null {
	const setup = signInProviderOf(settings);
	if (setup === null) return null;
	const { signIn, hub } = settings.configuration;
	const hubUrl = hub.url;
	const { handle } = database;
	const access = {
		hubUrl,
		fetch: createHubFetch({ hubUrl, attempts: 1, timeoutMilliseconds: ASK_MILLISECONDS }),
	};
	return {
		publicUrl: setup.publicUrl,
		provider: setup.provider,
		secret: setup.secret,
		operators: signIn.operators,
		store: {
			insert: (session) => insertSiteSession(handle, session),
			get: (idHash) => getSiteSession(handle, idHash, clock.now()),
			remove: (idHash) => deleteSiteSession(handle, idHash),
		},
		dataFor: (audience) => databaseData({ database, clock, audience }),
		personOf: (accessToken) => personOfToken({ ...access, accessToken }),
		listPrivate: (accessToken, namespace) => listPrivateModels({ ...access, accessToken }, namespace),
		privateSources: (namespaces) => listPrivateSources(handle, namespaces, MOST_PRIVATE_SOURCES),
	};
}

/** What people may do to jobs on their pages, by the rules that comments follow. */
export function jobControlOf({ configuration }: Settings, context: JobsContext): JobControl {
	const { database, clock } = context;
	const { allow, ignore } = commentSettings(configuration, "hub");
	const { cancelJob, retryJob } = jobRequests(context);
	const { requestersOf } = answerRecords({ database, clock, limits: configuration.requests.strangerAnswers });
	return createJobControl({
		allow,
		ignore,
		requestersOf,
		cancelJob,
		retryJob,
		approveJob: (id) => approveJob(context, id),
		clock,
	});
}

/** What whoever runs the bot looks after. */
export function operatorDataOf({ configuration }: Settings, context: JobsContext, metrics: Metrics): OperatorData {
	const { database, clock } = context;
	const { handle } = database;
	type Measured = ReturnType<OperatorData["isolation"]>;
	let measured: { readonly until: number; readonly level: Measured } | null = null;
	const isolation = (): Measured => {
		if (configuration.runner.kind !== "local") return Promise.resolve(null);
		const now = clock.now().getTime();
		if (measured === null || measured.until < now) {
			const folder = configuration.database.dataDirectory;
			const level = measureIsolation(runIsolation(configuration), { folder, environment: runnerEnvironment() });
			measured = { until: now + ISOLATION_MINUTES * 60_000, level };
		}
		return measured.level;
	};
	return {
		line: (limit) => listLine(handle, clock.now(), limit),
		spentMicroUsd: () => spentSince(handle, monthStart(clock.now())),
		kept: metrics.lastKept,
		isolation: async () => {
			const found = await isolation();
			return found === null ? null : { level: found.level, reason: found.reason };
		},
		replay: (id) => replayDelivery(context, id),
		settings: configuration,
	};
}
