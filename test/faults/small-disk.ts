import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** A disk of its own under a folder, which can be full for a while; `null`: this account cannot mount one. */
export type SmallDisk = {
	/** Takes what is free. */
	fill(): void;
	free(): void;
	/** The folder is empty afterwards. */
	unmount(): void;
};

export function smallDisk(folder: string, mebibytes: number): SmallDisk | null {
	mkdirSync(folder, { recursive: true });
	try {
		execFileSync("mount", ["-t", "tmpfs", "-o", `size=${mebibytes}m`, "tmpfs", folder], { stdio: "ignore" });
	} catch {
		return null;
	}
	const filler = join(folder, "filler");
	return {
		fill() {
			const { bavail, bsize } = statfsSync(folder);
			spawnSync("fallocate", ["--length", String(bavail * bsize), filler]);
			try {
				for (;;) writeFileSync(filler, Buffer.alloc(bsize), { flag: "a" });
			} catch {
				// Full, as it was meant to be: others write at the same time, and what they leave goes too.
			}
		},
		free: () => rmSync(filler, { force: true }),
		unmount: () => void execFileSync("umount", ["--lazy", folder]),
	};
}
