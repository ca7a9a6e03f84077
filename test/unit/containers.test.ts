import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { Copy, DockerfileParser, From } from "dockerfile-ast";
import { validate } from "dockerfile-utils";
import { parse } from "yaml";
import { z } from "zod";
import { ENVIRONMENT_OVERRIDES } from "../../src/config/load.ts";
import { SECRET_VARIABLES } from "../../src/config/secrets.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const deploy = join(root, "deploy");
const dockerfiles = readdirSync(deploy).filter((name) => name.endsWith(".Dockerfile"));
const read = (...path: readonly string[]): string => readFileSync(join(root, ...path), "utf8");
const packageJson = z
	.object({ version: z.string(), devDependencies: z.object({ node: z.string() }) })
	.parse(JSON.parse(read("package.json")));

/** What a stage takes from the checkout: `from` in the build context, `to` in the image. */
function copiesOf(
	name: string,
): readonly { readonly stage: number; readonly from: readonly string[]; readonly to: string }[] {
	let stage = -1;
	return DockerfileParser.parse(read("deploy", name))
		.getInstructions()
		.flatMap((instruction) => {
			if (instruction instanceof From) stage++;
			if (!(instruction instanceof Copy) || instruction.getFlags().length > 0) return [];
			const paths = instruction.getArguments().map((argument) => argument.getValue());
			return [{ stage, from: paths.slice(0, -1), to: paths.at(-1) ?? "" }];
		});
}

/** Lays out what the bot's image holds besides node_modules. */
function layOut(folder: string, wanted: (path: string) => boolean = () => true): void {
	for (const { from, to } of copiesOf("bot.Dockerfile")) {
		for (const path of from.filter(wanted)) {
			const target = to.endsWith("/") ? join(folder, to, basename(path)) : join(folder, to);
			mkdirSync(dirname(target), { recursive: true });
			cpSync(join(root, path), target, { recursive: true });
		}
	}
}

for (const name of dockerfiles) {
	test(`${name} is a Dockerfile, and what it copies is there and let through`, () => {
		assert.deepEqual(validate(read("deploy", name), {}), []);
		const paths = copiesOf(name).flatMap(({ from }) => from);
		assert.ok(paths.length > 0);
		const lines = read("deploy", `${name}.dockerignore`)
			.split("\n")
			.filter((line) => line !== "" && !line.startsWith("#"));
		assert.equal(lines[0], "*");
		for (const path of paths) {
			const plain = path.replace(/^\.\//, "");
			assert.ok(existsSync(join(root, plain)), plain);
			assert.ok(lines.includes(`!${plain}`), `${plain} is kept out of the build`);
		}
		assert.ok(!/^\s*(ENV|ARG)\s.*(TOKEN|SECRET|KEY|PASSWORD)/im.test(read("deploy", name)));
	});
}

test("images run as somebody other than root, on versions that this checkout is tested with", () => {
	const stages = DockerfileParser.parse(read("deploy", "bot.Dockerfile"));
	const bases = stages.getFROMs().map((from) => from.getImage() ?? "");
	const node = bases.filter((image) => image.startsWith("node:"));
	assert.ok(node.length > 0);
	for (const image of node) assert.equal(image, `node:${packageJson.devDependencies.node}-bookworm-slim`);
	// What is built when no target is named.
	assert.equal(stages.getFROMs().at(-1)?.getBuildStage(), "bot");
	const [, wanted = ""] = /requires-python = ">=([\d.]+)"/.exec(read("gpu-runner", "pyproject.toml")) ?? [];
	const [, python = ""] = /^FROM python:([\d.]+)-/m.exec(read("deploy", "runner.Dockerfile")) ?? [];
	assert.ok(Number(python.split(".")[1]) >= Number(wanted.split(".")[1]) && python.startsWith("3."), python);
	for (const name of dockerfiles) {
		const users = [...read("deploy", name).matchAll(/^USER (\w+)$/gm)].map(([, user]) => user);
		assert.ok(users.length > 0 && users.at(-1) !== "root", name);
	}
	const [, runner] = /^version = "(.+)"$/m.exec(read("gpu-runner", "pyproject.toml")) ?? [];
	assert.equal(runner, packageJson.version);
	assert.ok(read("deploy", "runner.Dockerfile").includes(`yaqa-runner:${packageJson.version} `));
});

test("what the bot's image copies is enough to start it", async () => {
	const folder = mkdtempSync(join(tmpdir(), "yaqa-image-"));
	// The packages are the image's other half.
	symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
	layOut(folder, (path) => path !== "gpu-runner");
	const child = spawn(process.execPath, [join(folder, "src", "main.ts"), "serve", "--json"], {
		cwd: folder,
		env: {
			PATH: process.env["PATH"] ?? "",
			YAQA_BOT_DATA_DIR: join(folder, "data"),
			YAQA_BOT_HUB_TOKEN: "hf_nobody",
			// Nothing listens there: the bot starts without the Hub.
			HF_ENDPOINT: "http://127.0.0.1:9",
			PORT: "0",
		},
		stdio: ["ignore", "pipe", "pipe"],
	});
	let log = "";
	child.stderr.setEncoding("utf8").on("data", (text: string) => {
		log += text;
	});
	try {
		const ended = once(child, "exit").then(() => {
			throw new Error(`The bot ended: ${log}`);
		});
		const first = await Promise.race([once(createInterface({ input: child.stdout }), "line"), ended]);
		const { address } = z.object({ ok: z.literal(true), address: z.url() }).parse(JSON.parse(String(first[0])));
		for (const path of ["/healthz", "/", "/help"]) assert.equal((await fetch(`${address}${path}`)).status, 200, path);
		ended.catch(() => undefined);
	} finally {
		child.kill("SIGTERM");
		if (child.exitCode === null) await once(child, "exit");
		rmSync(folder, { recursive: true, force: true });
	}
});

const Compose = z.object({
	services: z.record(
		z.string(),
		z.object({
			image: z.string().optional(),
			build: z.object({ context: z.string(), dockerfile: z.string() }).optional(),
			environment: z.record(z.string(), z.string()),
			depends_on: z.record(z.string(), z.object({ condition: z.literal("service_healthy") })).optional(),
			ports: z.array(z.string()).optional(),
			volumes: z.array(z.string()),
		}),
	),
	volumes: z.record(z.string(), z.unknown()),
});

test("compose.yaml names what is there: the Dockerfile, the folders, the variables that the bot reads", () => {
	const { services, volumes } = Compose.parse(parse(read("deploy", "compose.yaml")));
	const bot = services["bot"];
	assert.ok(bot?.build !== undefined);
	assert.ok(existsSync(join(deploy, bot.build.context, bot.build.dockerfile)));
	const known = new Set<string>([
		...Object.values(SECRET_VARIABLES).flat(),
		...ENVIRONMENT_OVERRIDES.map(({ variable }) => variable),
		"YAQA_BOT_CONFIG",
	]);
	for (const [name, value] of Object.entries(bot.environment)) {
		assert.ok(known.has(name), `${name} means nothing to the bot`);
		if (/TOKEN|SECRET|KEY/.test(name)) assert.match(value, /^\$\{\w+:[-?].*\}$/, `${name} stands in the file`);
	}
	// Published on this machine alone: the webhook's secret must not cross a network in the clear.
	for (const port of bot.ports ?? []) assert.match(port, /^127\.0\.0\.1:/);
	for (const { volumes: mounts } of Object.values(services)) {
		for (const mount of mounts) {
			const [source = ""] = mount.split(":");
			assert.ok(source.startsWith(".") ? existsSync(join(deploy, source)) : source in volumes, mount);
		}
	}
	for (const name of Object.keys(bot.depends_on ?? {})) assert.ok(services[name] !== undefined, name);
});

function hasCompose(): boolean {
	try {
		execFileSync("docker-compose", ["version"], { stdio: "ignore" });
		return true;
	} catch {
		return false;
	}
}

test("docker-compose accepts compose.yaml", { skip: hasCompose() ? false : "no docker-compose" }, () => {
	const env = { PATH: process.env["PATH"] ?? "", POSTGRES_PASSWORD: "x", YAQA_BOT_HUB_TOKEN: "y" };
	const options = { cwd: deploy, encoding: "utf8" as const, env };
	const accepted = execFileSync("docker-compose", ["-f", "compose.yaml", "config"], options);
	assert.match(accepted, /postgres:\/\/yaqa:x@database:5432\/yaqa/);
	assert.throws(() =>
		execFileSync("docker-compose", ["-f", "compose.yaml", "config"], { ...options, env: { PATH: env.PATH } }),
	);
});

test("the Space's folder is whole, and its settings name the port that the image listens on", () => {
	const folder = mkdtempSync(join(tmpdir(), "yaqa-space-"));
	try {
		execFileSync("bash", [join(deploy, "space", "assemble.sh"), folder], { stdio: "pipe" });
		const [, front = ""] = /^---\n([\s\S]*?)\n---\n/.exec(readFileSync(join(folder, "README.md"), "utf8")) ?? [];
		const settings = z
			.object({ title: z.string(), sdk: z.literal("docker"), app_port: z.int(), short_description: z.string().max(60) })
			.parse(parse(front));
		const dockerfile = readFileSync(join(folder, "Dockerfile"), "utf8");
		assert.match(dockerfile, new RegExp(`^EXPOSE ${settings.app_port}$`, "m"));
		// The default target's files, which a Space builds.
		const stages = DockerfileParser.parse(dockerfile).getFROMs();
		const target = stages.findIndex((from) => from.getBuildStage() === "bot-with-runner");
		const needed = copiesOf("bot.Dockerfile").filter(({ stage }) => stage !== target);
		assert.ok(needed.length > 0);
		for (const path of needed.flatMap(({ from }) => from)) assert.ok(existsSync(join(folder, path)), path);
	} finally {
		rmSync(folder, { recursive: true, force: true });
	}
});
