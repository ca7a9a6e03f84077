import { createPublicKey, generateKeyPairSync, randomBytes, verify } from "node:crypto";
import { once } from "node:events";
import { mkdir } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { endGroup, startJobProcess } from "../../src/local-hub/job-process.ts";
import { loadContract, type MatchedOperation } from "./api-contract.ts";
import { createIssues, type IssueBook } from "./issues.ts";
import { Refused } from "./refused.ts";
import { createWebhookSender, type WebhookSender } from "./webhooks.ts";
import { fillIn, readWorkflow } from "./workflow-file.ts";

/** What goes wrong with the next dispatch, or with the run it starts. */
export type GitHubFault =
	| "bad-gateway-after-accept"
	| "silent-after-accept"
	/** 429 with Retry-After, as newer secondary limits are. */
	| "rate-limited"
	/** 403 with Retry-After, as older secondary limits are. */
	| "limited-by-403"
	/** 403 with the hour's quota used up. */
	| "quota-used-up"
	/** A repo that was renamed: 301 to its number, 307 for what is no GET. */
	| "moved"
	/** 429 that names no time. */
	| "limited-without-time"
	/** 503, nothing done. */
	| "unavailable"
	/** 500, nothing done. */
	| "server-error"
	/** An answer that comes after two and a half seconds. */
	| "slow"
	/** An answer that breaks off half-way. */
	| "truncated"
	/** 200 with a page that says nothing, as a proxy in front of GitHub gives. */
	| "wrong"
	| "no-run-details"
	| "vanishes"
	| "succeeds-without-result"
	| "never-taken"
	/** A run that goes on after a plain cancel, as one with steps that run always does. */
	| "needs-force"
	| "logs-gone"
	| "revoked"
	| "workflow-missing";

type Run = {
	readonly id: number;
	readonly title: string;
	readonly number: number;
	readonly createdAt: string;
	status: "queued" | "in_progress" | "completed";
	conclusion: "success" | "failure" | "cancelled" | null;
	pid: number | null;
	cancelled: boolean;
	readonly needsForce: boolean;
	readonly cancels: ("plain" | "force")[];
	readonly log: string[];
};

export type FakeGitHub = {
	readonly url: string;
	readonly repository: string;
	/** Another repo, with issues that people write in. */
	readonly issues: IssueBook;
	readonly appId: string;
	readonly privateKey: string;
	arm(fault: GitHubFault, times?: number): void;
	disarm(): void;
	/** How often a fault has struck. */
	struck(): number;
	runs(): readonly Run[];
	/** Every call answered, `GET /repos/acme/models/issues 200`, oldest first. */
	calls(): readonly string[];
	/** Nothing is sent before `sendTo` was called. */
	readonly webhooks: WebhookSender;
	/** Where this server broke GitHub's own description; empty, or a test of it is worth nothing. */
	readonly breaches: readonly string[];
	close(): Promise<void>;
};

type FakeGitHubOptions = {
	/** Runs work below it. */
	readonly folder: string;
	readonly workflowPath: string;
	/** Where runs find programs. */
	readonly path: string;
	readonly variables: Readonly<Record<string, string>>;
	readonly secrets: Readonly<Record<string, string>>;
	/** Where the API lies: `/api/v3` on a GitHub Enterprise Server. */
	readonly basePath?: string;
};

const APP_ID = "4711";
const INSTALLATION = 42;
const REPOSITORY = "acme/quantize";
const ISSUE_REPOSITORY = "acme/models";
const WORKFLOW = "quantize.yml";
const LOGS = "/_logs/";

function part(token: string, index: number): Readonly<Record<string, unknown>> {
	return JSON.parse(Buffer.from(token.split(".")[index] ?? "", "base64url").toString("utf8"));
}

/** GitHub as this project meets it: Apps, workflow dispatch and runs, over HTTP; runs are processes of this machine. */
export async function startFakeGitHub(options: FakeGitHubOptions): Promise<FakeGitHub> {
	const match = loadContract();
	const workflow = readWorkflow(options.workflowPath);
	const keys = generateKeyPairSync("rsa", { modulusLength: 2048 });
	const publicKey = createPublicKey(keys.privateKey);
	const tokens = new Set<string>();
	const runs = new Map<number, Run>();
	const breaches: string[] = [];
	const calls: string[] = [];
	const basePath = options.basePath ?? "";
	const endings = new Set<Promise<void>>();
	let faults: { fault: GitHubFault; left: number } | null = null;
	let struck = 0;
	let nextId = 9_000_000_001;
	let origin = "";

	const webhooks = createWebhookSender();
	const issues = createIssues({
		repository: ISSUE_REPOSITORY,
		appId: Number(APP_ID),
		origin: () => origin,
		now: () => new Date(),
	});

	const has = (...wanted: readonly GitHubFault[]): boolean => {
		if (faults === null || !wanted.includes(faults.fault) || faults.left === 0) return false;
		faults.left--;
		struck++;
		return true;
	};

	/** What stands before every answer to a call on a repo. */
	function limits(method: string, path: string, search: string): void {
		if (has("limited-by-403")) {
			throw new Refused(403, "You have exceeded a secondary rate limit.", { "Retry-After": "60" });
		}
		if (has("quota-used-up")) {
			const reset = String(Math.ceil(Date.now() / 1000) + 90);
			throw new Refused(403, "API rate limit exceeded for installation.", {
				"X-RateLimit-Limit": "5000",
				"X-RateLimit-Remaining": "0",
				"X-RateLimit-Reset": reset,
			});
		}
		if (has("limited-without-time")) throw new Refused(429, "You have exceeded a secondary rate limit.");
		if (has("unavailable")) throw new Refused(503, "Service Unavailable");
		if (has("server-error")) throw new Refused(500, "Internal Server Error");
		if (path.startsWith("/repos/") && has("moved")) {
			const number = path.startsWith(`/repos/${REPOSITORY}/`) ? 1 : 2;
			const rest = path.split("/").slice(4).join("/");
			throw new Refused(method === "GET" ? 301 : 307, "Moved Permanently", {
				Location: `${origin}/repositories/${number}/${rest}${search}`,
			});
		}
	}

	/** A repo is reached by its number too, which stays when its name changes. */
	function pathOf(pathname: string): string {
		const path = pathname.startsWith(`${basePath}/`) ? pathname.slice(basePath.length) : pathname;
		return path.replace(
			/^\/repositories\/([12])\//,
			(_, number: string) => `/repos/${number === "1" ? REPOSITORY : ISSUE_REPOSITORY}/`,
		);
	}

	const jobOf = (run: Run): number => run.id + 1_000_000_000;

	function signedInAsApp(request: IncomingMessage): void {
		const token = (request.headers.authorization ?? "").replace(/^bearer /i, "");
		const [head = "", body = "", signature = ""] = token.split(".");
		const valid =
			body !== "" &&
			part(token, 0)["alg"] === "RS256" &&
			verify("RSA-SHA256", Buffer.from(`${head}.${body}`), publicKey, Buffer.from(signature, "base64url")) &&
			String(part(token, 1)["iss"]) === APP_ID &&
			Number(part(token, 1)["exp"]) > Date.now() / 1000;
		if (!valid) throw new Refused(401, "A JSON web token could not be decoded");
		if (faults?.fault === "revoked") throw new Refused(404, "Not Found");
	}

	function signedInAsInstallation(request: IncomingMessage): void {
		const token = (request.headers.authorization ?? "").replace(/^(token|bearer) /i, "");
		if (!tokens.has(token)) throw new Refused(401, "Bad credentials");
	}

	function view(run: Run): Record<string, unknown> {
		const url = `${origin}/repos/${REPOSITORY}/actions/runs/${run.id}`;
		return {
			id: run.id,
			name: workflow.name,
			node_id: `WFR_${run.id}`,
			head_branch: "main",
			head_sha: "0".repeat(40),
			path: `.github/workflows/${WORKFLOW}`,
			run_number: run.number,
			run_attempt: 1,
			event: "workflow_dispatch",
			status: run.status,
			conclusion: run.conclusion,
			workflow_id: 7,
			url,
			html_url: url,
			created_at: run.createdAt,
			updated_at: run.createdAt,
			jobs_url: `${url}/jobs`,
			logs_url: `${url}/logs`,
			check_suite_url: `${url}/suite`,
			artifacts_url: `${url}/artifacts`,
			cancel_url: `${url}/cancel`,
			rerun_url: `${url}/rerun`,
			workflow_url: `${origin}/workflow`,
			display_title: run.title,
		};
	}

	async function execute(run: Run, inputs: Readonly<Record<string, string>>, empty: boolean): Promise<void> {
		const context = { inputs, vars: options.variables, secrets: options.secrets };
		const [job] = Object.values(workflow.jobs);
		const directory = join(options.folder, String(run.id));
		await mkdir(directory, { recursive: true });
		for (const step of job?.steps ?? []) {
			if (run.cancelled) break;
			const environment = Object.fromEntries(
				Object.entries(step.env ?? {}).map(([name, template]) => [name, fillIn(template, context)]),
			);
			const started = await startJobProcess({
				command: "bash",
				arguments: [
					"--noprofile",
					"--norc",
					"-eo",
					"pipefail",
					"-c",
					empty ? "true" : fillIn(step.run ?? "true", context),
				],
				directory,
				environment: {
					...environment,
					PATH: options.path,
					HOME: directory,
					GITHUB_RUN_ID: String(run.id),
					GITHUB_RUN_ATTEMPT: "1",
					GITHUB_TOKEN: "ghs_canarycanary",
				},
				onLine: (line) => run.log.push(line),
			});
			run.pid = started.pid;
			run.status = "in_progress";
			tell(run, "in_progress");
			if (run.cancelled) await endGroup(started.pid);
			const { code } = await started.ended;
			run.pid = null;
			if (code !== 0) {
				run.conclusion = "failure";
				break;
			}
		}
		run.conclusion = run.cancelled ? "cancelled" : (run.conclusion ?? "success");
		run.status = "completed";
		tell(run, "completed");
	}

	function dispatch(body: Readonly<Record<string, unknown>>): Run {
		const inputs = (body["inputs"] ?? {}) as Readonly<Record<string, string>>;
		const wanted = workflow.on.workflow_dispatch.inputs;
		for (const name of Object.keys(inputs)) {
			if (wanted[name] === undefined) throw new Refused(422, `Unexpected inputs provided: ["${name}"]`);
		}
		for (const [name, input] of Object.entries(wanted)) {
			if (input.required && inputs[name] === undefined) throw new Refused(422, `Required input '${name}' not provided`);
		}
		if (body["ref"] !== "main") throw new Refused(422, `No ref found for: ${body["ref"]}`);
		const id = nextId++;
		const run: Run = {
			id,
			title: fillIn(workflow["run-name"], { inputs, vars: options.variables, secrets: {} }),
			number: runs.size + 1,
			createdAt: new Date().toISOString(),
			status: "queued",
			conclusion: null,
			pid: null,
			cancelled: false,
			needsForce: has("needs-force"),
			cancels: [],
			log: [],
		};
		if (has("vanishes")) return run;
		runs.set(id, run);
		tell(run, "requested");
		if (has("never-taken")) return run;
		const ending = execute(run, inputs, has("succeeds-without-result"));
		endings.add(ending);
		return run;
	}

	function jobView(run: Run): Record<string, unknown> {
		const url = `${origin}/repos/${REPOSITORY}/actions/jobs/${jobOf(run)}`;
		return {
			id: jobOf(run),
			run_id: run.id,
			run_url: `${origin}/repos/${REPOSITORY}/actions/runs/${run.id}`,
			node_id: `CR_${run.id}`,
			head_sha: "0".repeat(40),
			url,
			html_url: url,
			status: run.status,
			conclusion: run.conclusion,
			created_at: run.createdAt,
			started_at: run.createdAt,
			completed_at: run.status === "completed" ? new Date().toISOString() : null,
			name: run.title,
			check_run_url: url,
			labels: ["self-hosted", "gpu"],
			runner_id: 1,
			runner_name: "gpu-1",
			runner_group_id: 1,
			runner_group_name: "quantize",
			workflow_name: workflow.name,
			head_branch: "main",
		};
	}

	/** Tells of a run as GitHub does: of the run and of its job. */
	function tell(run: Run, action: "requested" | "in_progress" | "completed"): void {
		const repository = { full_name: REPOSITORY };
		const subject = String(run.id);
		const job = { action: action === "requested" ? "queued" : action, repository, workflow_job: jobView(run) };
		webhooks.emit(subject, "workflow_job", job, false);
		const told = { action, repository, workflow_run: view(run) };
		webhooks.emit(subject, "workflow_run", told, action === "completed");
	}

	function cancel(run: Run, force: boolean): void {
		if (run.status === "completed") throw new Refused(409, "Cannot cancel a workflow run that is completed.");
		run.cancels.push(force ? "force" : "plain");
		if (run.needsForce && !force) return;
		run.cancelled = true;
		if (run.pid !== null) void endGroup(run.pid, force ? 0 : 3000);
		else if (run.status === "queued") {
			Object.assign(run, { status: "completed", conclusion: "cancelled" });
			tell(run, "completed");
		}
	}

	/** Status and body; `null` for no answer at all. */
	function act(
		request: IncomingMessage,
		operation: MatchedOperation,
		url: URL,
		body: unknown,
	): readonly [status: number, body: unknown, location?: string] | null {
		const { path } = operation;
		if (operation.id === "apps/get-repo-installation") {
			signedInAsApp(request);
			if (![REPOSITORY, ISSUE_REPOSITORY].includes(`${path["owner"]}/${path["repo"]}`))
				throw new Refused(404, "Not Found");
			return [
				200,
				{
					id: INSTALLATION,
					app_id: Number(APP_ID),
					target_type: "Organization",
					repository_selection: "selected",
					permissions: { actions: "write", issues: "write" },
					events: ["workflow_run", "issues", "issue_comment"],
				},
			];
		}
		if (operation.id === "apps/create-installation-access-token") {
			signedInAsApp(request);
			const token = `ghs_${randomBytes(18).toString("hex")}`;
			tokens.add(token);
			return [
				201,
				{ token, expires_at: new Date(Date.now() + 3_600_000).toISOString(), permissions: { actions: "write" } },
			];
		}
		signedInAsInstallation(request);
		if (`${path["owner"]}/${path["repo"]}` === ISSUE_REPOSITORY) {
			if (has("rate-limited"))
				throw new Refused(429, "You have exceeded a secondary rate limit.", { "Retry-After": "1" });
			if (operation.id === "issues/create-comment" && has("bad-gateway-after-accept")) {
				issues.act(operation, url, body);
				throw new Refused(502, "Bad Gateway");
			}
			const done = issues.act(operation, url, body);
			if (done === null) throw new Refused(404, "Not Found");
			return done;
		}
		if (`${path["owner"]}/${path["repo"]}` !== REPOSITORY) throw new Refused(404, "Not Found");
		if (path["workflow_id"] !== undefined && path["workflow_id"] !== WORKFLOW) throw new Refused(404, "Not Found");
		const run = path["run_id"] === undefined ? null : (runs.get(Number(path["run_id"])) ?? null);
		switch (operation.id) {
			case "actions/create-workflow-dispatch": {
				if (has("workflow-missing")) throw new Refused(404, "Not Found");
				if (has("rate-limited"))
					throw new Refused(429, "You have exceeded a secondary rate limit.", { "Retry-After": "1" });
				const details = body as Readonly<Record<string, unknown>>;
				const made = dispatch(details);
				if (has("bad-gateway-after-accept")) throw new Refused(502, "Bad Gateway");
				if (has("silent-after-accept")) return null;
				if (has("no-run-details") || details["return_run_details"] !== true) return [204, null];
				const at = `${origin}/repos/${REPOSITORY}/actions/runs/${made.id}`;
				return [200, { workflow_run_id: made.id, run_url: at, html_url: at }];
			}
			case "actions/list-workflow-runs": {
				const size = Number(url.searchParams.get("per_page") ?? 30);
				const first = (Number(url.searchParams.get("page") ?? 1) - 1) * size;
				const all = [...runs.values()].reverse();
				return [200, { total_count: all.length, workflow_runs: all.slice(first, first + size).map(view) }];
			}
			case "actions/get-workflow-run":
				if (run === null) throw new Refused(404, "Not Found");
				return [200, view(run)];
			case "actions/list-jobs-for-workflow-run":
				if (run === null) throw new Refused(404, "Not Found");
				return [200, { total_count: 1, jobs: [jobView(run)] }];
			case "actions/download-job-logs-for-workflow-run": {
				const found = [...runs.values()].find((one) => jobOf(one) === Number(path["job_id"]));
				if (found === undefined || found.status !== "completed") throw new Refused(404, "Not Found");
				if (has("logs-gone")) throw new Refused(410, "Gone");
				return [302, null, `${origin}${LOGS}${found.id}`];
			}
			case "actions/cancel-workflow-run":
			case "actions/force-cancel-workflow-run":
				if (run === null) throw new Refused(404, "Not Found");
				cancel(run, operation.id === "actions/force-cancel-workflow-run");
				return [202, {}];
			default:
				throw new Refused(404, "Not Found");
		}
	}

	async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
		const chunks: Buffer[] = [];
		for await (const chunk of request) chunks.push(chunk);
		const text = Buffer.concat(chunks).toString("utf8");
		const url = new URL(request.url ?? "/", origin);
		const body: unknown = text === "" ? undefined : JSON.parse(text);
		const asked = pathOf(url.pathname);
		const operation = match(request.method ?? "GET", new URL(`${asked}${url.search}`, url.origin), body);
		if (asked.startsWith(LOGS)) {
			// The storage that log addresses point to: it knows no tokens, and ought to be sent none.
			if (request.headers.authorization !== undefined) breaches.push("a token was sent to the log storage");
			const stamped = runs.get(Number(asked.slice(LOGS.length)))?.log ?? [];
			response.end(stamped.map((line) => `2026-11-25T10:00:00.0000000Z ${line}\n`).join(""));
			return;
		}
		const send = (
			status: number,
			content: unknown,
			location?: string,
			headers: Readonly<Record<string, string>> = {},
		): void => {
			calls.push(`${request.method} ${url.pathname} ${status}`);
			// Every call may be limited, moved or fail; the description of each does not repeat that.
			const general = status >= 500 || [301, 307, 403, 429].includes(status);
			const problem = general ? null : (operation?.problemOf(status, content) ?? null);
			if (problem !== null) breaches.push(`${request.method} ${url.pathname} ${status}: ${problem}`);
			const bytes = Buffer.from(content === null ? "" : JSON.stringify(content));
			if (bytes.length > 0 && has("wrong")) {
				response.writeHead(200, { "Content-Type": "text/html" }).end("<html><body>Welcome</body></html>");
				return;
			}
			const isCut = bytes.length > 0 && has("truncated");
			const length = { "Content-Length": String(bytes.length) };
			response.writeHead(status, {
				"Content-Type": "application/json",
				...(isCut ? length : {}),
				...(location === undefined ? {} : { Location: location }),
				...headers,
			});
			if (!isCut) {
				response.end(bytes);
				return;
			}
			// What was written goes out first.
			response.write(bytes.subarray(0, Math.floor(bytes.length / 2)), () =>
				setTimeout(() => request.socket.destroy(), 20),
			);
		};
		if (operation === null) {
			breaches.push(`${request.method} ${url.pathname} is not in the description`);
			send(404, { message: "Not Found" });
			return;
		}
		if (operation.problem !== null) {
			breaches.push(`${request.method} ${url.pathname}: ${operation.problem}`);
			send(422, { message: operation.problem });
			return;
		}
		try {
			if (has("slow")) await sleep(2500);
			if (!operation.id.startsWith("apps/"))
				limits(request.method ?? "GET", url.pathname.slice(basePath.length), url.search);
			const result = act(request, operation, url, body);
			if (result !== null) send(...result);
		} catch (error) {
			if (!(error instanceof Refused)) throw error;
			send(error.status, { message: error.message }, undefined, error.headers);
		}
	}

	const server = createServer((request, response) => {
		answer(request, response).catch((error: unknown) => {
			breaches.push(String(error));
			response.destroy();
		});
	});
	server.listen(0, "127.0.0.1");
	await once(server, "listening");
	const address = server.address();
	origin = `http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}${basePath}`;

	return {
		url: origin,
		repository: REPOSITORY,
		issues,
		appId: APP_ID,
		privateKey: keys.privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
		arm(fault, times = 1) {
			faults = { fault, left: times };
		},
		disarm() {
			faults = null;
		},
		struck: () => struck,
		runs: () => [...runs.values()],
		calls: () => calls,
		webhooks,
		breaches,
		async close() {
			for (const run of runs.values()) if (run.pid !== null) await endGroup(run.pid, 0);
			await Promise.allSettled(endings);
			await webhooks.settle();
			server.closeAllConnections();
			server.close();
		},
	};
}
