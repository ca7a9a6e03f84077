/** A sound safetensors file of float32 tensors of these shapes by name, each number `value`. */
export function safetensors(shapes: Readonly<Record<string, readonly number[]>>, value = 0): Uint8Array<ArrayBuffer> {
	let end = 0;
	const header = Object.entries(shapes).map(([name, shape]) => {
		const start = end;
		end += 4 * shape.reduce((product, size) => product * size, 1);
		return [name, { dtype: "F32", shape, data_offsets: [start, end] }] as const;
	});
	const text = new TextEncoder().encode(JSON.stringify(Object.fromEntries(header)));
	const bytes = new Uint8Array(8 + text.byteLength + end);
	new DataView(bytes.buffer).setBigUint64(0, BigInt(text.byteLength), true);
	bytes.set(text, 8);
	if (value !== 0) bytes.set(new Uint8Array(new Float32Array(end / 4).fill(value).buffer), 8 + text.byteLength);
	return bytes;
}
