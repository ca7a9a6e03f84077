import type { Request, Response } from "express";

/** `null`: more than `limit` bytes came. Chunked bodies have no length to look at first. */
export async function readBody(request: Request, limit: number): Promise<Buffer | null> {
	if (Number(request.get("content-length") ?? 0) > limit) return null;
	const chunks: Buffer[] = [];
	let received = 0;
	for await (const chunk of request) {
		const bytes: Buffer = Buffer.isBuffer(chunk) ? chunk : Buffer.from(String(chunk));
		received += bytes.byteLength;
		if (received > limit) return null;
		chunks.push(bytes);
	}
	return Buffer.concat(chunks);
}

/** Answers a delivery that is not taken. Its body may not have been read: the connection cannot be used again. */
export function refuseDelivery(response: Response, status: number, error: string): void {
	response.set("Connection", "close").status(status).json({ error });
}
