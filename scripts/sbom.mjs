// Writes what the bot and the runner consist of, as CycloneDX: `npm run sbom -- [FOLDER]`, by default .cache/sbom.
import { mkdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import process from "node:process";
import { root, run, runnerPython, withPythonTool } from "./throwaway-python.mjs";

const folder = resolve(process.argv[2] ?? join(root, ".cache", "sbom"));
mkdirSync(folder, { recursive: true });

/** The JSON text, or the reason why there is none. */
function written(name, { text, why }) {
	if (text === null) {
		process.stderr.write(`${name}: ${why}\n`);
		return null;
	}
	const path = join(folder, name);
	writeFileSync(path, text);
	const components = JSON.parse(text).components?.length ?? 0;
	process.stdout.write(`${path}: ${components} packages\n`);
	return components;
}

function npmPackages() {
	const asked = run("npm", ["sbom", "--sbom-format", "cyclonedx", "--omit", "dev", "--package-lock-only"]);
	return asked.status === 0 ? { text: asked.stdout, why: null } : { text: null, why: asked.stderr.trim() };
}

function pythonPackages() {
	const { made, why } = withPythonTool("cyclonedx-bom==7.5.0", (programs) =>
		run(join(programs, "cyclonedx-py"), [
			...["environment", "--pyproject", join("gpu-runner", "pyproject.toml")],
			...["--output-reproducible", runnerPython],
		]),
	);
	if (made === null) return { text: null, why };
	return made.status === 0 ? { text: made.stdout, why: null } : { text: null, why: made.stderr.trim().slice(-300) };
}

const counts = [written("bot.cdx.json", npmPackages()), written("runner.cdx.json", pythonPackages())];
process.exitCode = counts.includes(null) ? 1 : 0;
