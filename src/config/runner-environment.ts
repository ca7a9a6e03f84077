/** What a process that loads models may see of ours: where programs and devices are, never a token. */
const PASSED_ON = [
	"PATH",
	"LANG",
	"LC_ALL",
	"TZ",
	"LD_LIBRARY_PATH",
	"SSL_CERT_FILE",
	"CUDA_VISIBLE_DEVICES",
	"CUDA_HOME",
	"CUDA_DEVICE_ORDER",
	"NVIDIA_VISIBLE_DEVICES",
	"NVIDIA_DRIVER_CAPABILITIES",
] as const;

export function runnerEnvironment(
	env: Readonly<Record<string, string | undefined>> = process.env,
): Readonly<Record<string, string>> {
	const passed: Record<string, string> = {};
	for (const name of PASSED_ON) {
		const value = env[name];
		if (value !== undefined) passed[name] = value;
	}
	return passed;
}
