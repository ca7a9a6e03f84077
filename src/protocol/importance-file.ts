const IMPORTANCE = /^imatrix\/imatrix-[0-9a-f]{8}\.gguf$/;

/** Whether the file is an importance matrix, which llama-quantize takes: it lies beside a model and is none. */
export function isImportance(path: string): boolean {
	return IMPORTANCE.test(path);
}

/** The files that a variant is: without what lies beside it for who quantizes the model himself. */
export function ownFiles<File extends { readonly path: string }>(variant: {
	readonly files: readonly File[];
}): readonly File[] {
	return variant.files.filter(({ path }) => !isImportance(path));
}

/** Their bytes. */
export function ownBytes(variant: {
	readonly files: readonly { readonly path: string; readonly size: number }[];
}): number {
	return ownFiles(variant).reduce((sum, file) => sum + file.size, 0);
}
