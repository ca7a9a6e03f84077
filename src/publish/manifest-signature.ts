import { createHash, createPrivateKey, createPublicKey, type KeyObject, sign, verify } from "node:crypto";

/** What a manifest's text is signed with; the signature's file is `signaturePath` of the manifest's. */
export type ManifestSigner = (manifest: string) => string;

/** Told apart from anything else that the key may sign. */
const CONTEXT = "yaqa-bot manifest 1\n";
const SIGNATURE = /^ed25519 ([0-9a-f]{16}) ([A-Za-z0-9+/]{86}==)\n?$/;

export const MAXIMUM_SIGNATURE_BYTES = 200;

export function signaturePath(manifestPath: string): string {
	return `${manifestPath}.sig`;
}

/** A short name for a public key, by which people see which one is meant. */
function keyName(key: KeyObject): string {
	return createHash("sha256")
		.update(key.export({ format: "der", type: "spki" }))
		.digest("hex")
		.slice(0, 16);
}

function signed(manifest: string): Buffer {
	return Buffer.from(`${CONTEXT}${manifest}`, "utf8");
}

/** Signs with an Ed25519 private key in PEM form. */
export function manifestSigner(privateKey: string): ManifestSigner {
	const key = createPrivateKey(privateKey);
	if (key.asymmetricKeyType !== "ed25519") throw new Error("Manifests are signed with an Ed25519 key.");
	const name = keyName(createPublicKey(key));
	return (manifest) => `ed25519 ${name} ${sign(null, signed(manifest), key).toString("base64")}\n`;
}

/** An Ed25519 public key in PEM form; `null` where the text is none. */
export function parsePublicKey(pem: string): KeyObject | null {
	try {
		// A private key's text would pass for its public one.
		if (pem.includes("PRIVATE KEY")) return null;
		const key = createPublicKey(pem);
		return key.asymmetricKeyType === "ed25519" ? key : null;
	} catch {
		return null;
	}
}

/** What is wrong with a manifest's signature by `key`; `null`: nothing. `signature`: its file's text, if there is one. */
export function signatureProblem(manifest: string, signature: string | null, key: KeyObject): string | null {
	if (signature === null) return "the manifest is not signed";
	const [, name, encoded] = SIGNATURE.exec(signature) ?? [];
	if (encoded === undefined) return "the manifest's signature cannot be read";
	if (name !== keyName(key)) return `the manifest is signed by another key (${name})`;
	return verify(null, signed(manifest), key, Buffer.from(encoded, "base64"))
		? null
		: "the manifest's signature is not of this manifest";
}
