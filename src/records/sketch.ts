/** What a sketch is of, and by which settings it was taken. */
export type SketchIdentity = { readonly repo: string; readonly sha: string; readonly fingerprint: string };
