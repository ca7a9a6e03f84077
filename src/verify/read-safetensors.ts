import { type FileHandle, open } from "node:fs/promises";
import {
	LENGTH_BYTES,
	parseSafetensorsHeader,
	type SafetensorsHeader,
	SafetensorsHeaderError,
	safetensorsHeaderLength,
	type TensorInfo,
} from "./safetensors-header.ts";

export type SafetensorsFile = {
	readonly header: SafetensorsHeader;
	/** Bytes of a tensor, or of a part of it: `from` to `to` (exclusive) within the tensor. */
	read(tensor: TensorInfo, from?: number, to?: number): Promise<Uint8Array>;
	close(): Promise<void>;
};

/** Opens a safetensors file whose header is sound; throws `SafetensorsHeaderError` else. */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
	const handle = await open(path, "r");
	try {
		const { size } = await handle.stat();
		const length = safetensorsHeaderLength(await readRange(handle, 0, Math.min(LENGTH_BYTES, size)), size);
		const header = parseSafetensorsHeader(await readRange(handle, 0, LENGTH_BYTES + length), size);
		return {
			header,
			read: (tensor, from = 0, to = tensor.end - tensor.start) =>
				readRange(handle, tensor.start + from, tensor.start + to),
			close: () => handle.close(),
		};
	} catch (error) {
		await handle.close();
		throw error;
	}
}

async function readRange(handle: FileHandle, start: number, end: number): Promise<Uint8Array> {
	const buffer = new Uint8Array(end - start);
	for (let filled = 0; filled < buffer.byteLength; ) {
		const { bytesRead } = await handle.read(buffer, filled, buffer.byteLength - filled, start + filled);
		if (bytesRead === 0) throw new SafetensorsHeaderError("the file ends early");
		filled += bytesRead;
	}
	return buffer;
}

/** An exponent of all ones is infinity or NaN in every one of these types. */
export function allFinite(bytes: Uint8Array, dtype: string): boolean {
	const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
	const step = dtype === "F32" ? 4 : 2;
	for (let offset = 0; offset < view.byteLength; offset += step) {
		const finite =
			dtype === "F32"
				? (view.getUint32(offset, true) & 0x7f800000) !== 0x7f800000
				: dtype === "BF16"
					? (view.getUint16(offset, true) & 0x7f80) !== 0x7f80
					: (view.getUint16(offset, true) & 0x7c00) !== 0x7c00;
		if (!finite) return false;
	}
	return true;
}
