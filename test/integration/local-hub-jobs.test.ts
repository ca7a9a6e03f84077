import assert from "node:assert/strict";
import { test } from "node:test";
import { getJob, listJobHardware, runJob, streamJobLogs } from "@huggingface/hub";
import {
	BOT,
	call,
	OWNER,
	python,
	pythonEnvironment,
	run,
	temporaryFolder,
	testHub,
	withoutPython,
} from "../support/local-hub-fixture.ts";
import { until } from "../support/scripted-bot.ts";

const PYTHON = `
import sys
from huggingface_hub import HfApi
api = HfApi()
job = api.run_job(image="python:3.12", command=["sh", "-c", "echo from $GREETING with $SECRET; exit $CODE"],
    env={"GREETING": "the job", "CODE": sys.argv[1]}, secrets={"SECRET": "s3cr3t"}, flavor="cpu-basic",
    labels={"kind": "test"}, namespace="lab", timeout="1m")
print("lines:", [line for line in api.fetch_job_logs(job_id=job.id, namespace="lab", follow=True)])
info = api.wait_for_job(job_id=job.id, namespace="lab") if hasattr(api, "wait_for_job") else api.inspect_job(job_id=job.id, namespace="lab")
info = info[0] if isinstance(info, list) else info
print("stage:", str(info.status.stage).rpartition(".")[2])
print("listed:", [one.id for one in api.list_jobs(namespace="lab")] == [job.id])
`;

test("the Python client runs a job, follows its log and sees its end", { skip: withoutPython }, async (context) => {
	const hub = await testHub(context, { jobs: { programFolders: [] } });
	const home = await temporaryFolder(context);
	const { code, stdout, stderr } = await run(python, ["-c", PYTHON, "0"], pythonEnvironment(hub, home, OWNER));
	assert.equal(code, 0, stderr);
	assert.match(stdout, /lines: \['from the job with s3cr3t'\]/);
	assert.match(stdout, /stage: COMPLETED/);
	assert.match(stdout, /listed: True/);
});

test("the JavaScript client runs a job and reads its log; jobs outlive nothing", async (context) => {
	const hub = await testHub(context, { jobs: { programFolders: [] } });
	const access = { hubUrl: hub.url, accessToken: BOT, namespace: "lab" };
	assert.ok((await listJobHardware({ hubUrl: hub.url })).some((one) => one.name === "t4-small"));
	const job = await runJob({
		...access,
		dockerImage: "alpine",
		command: ["sh", "-c"],
		arguments: ["echo one; echo two >&2; sleep 60 & exit 3"],
		flavor: "cpu-basic",
	});
	const lines: string[] = [];
	for await (const { message } of streamJobLogs({ ...access, jobId: job.id })) lines.push(message);
	assert.deepEqual(lines.slice(1).sort(), ["one", "two"]);
	const ended = await until("the job's end", async () => {
		const now = await getJob({ ...access, jobId: job.id });
		return now.status.stage === "ERROR" ? now : null;
	});
	assert.match(ended.status.message ?? "", /exit code: 3/);
});

test("jobs that run when the Hub stops are told as failed by the next one, and a Hub without jobs says so", async (context) => {
	const first = await testHub(context, { jobs: { programFolders: [] } });
	const access = { accessToken: BOT, namespace: "lab" };
	const job = await runJob({
		...access,
		hubUrl: first.url,
		dockerImage: "alpine",
		command: ["sleep", "60"],
		flavor: "cpu-basic",
	});
	await first.close();
	const second = await testHub(context, { dataDirectory: first.dataDirectory });
	const seen = await getJob({ ...access, hubUrl: second.url, jobId: job.id });
	assert.equal(seen.status.stage, "ERROR");
	const answer = await call(`${second.url}/api/jobs/lab`, {
		token: BOT,
		body: { dockerImage: "alpine", command: ["true"], flavor: "cpu-basic" },
	});
	assert.equal(answer.status, 501);
});
