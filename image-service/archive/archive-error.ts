/** An archive that is malformed, hostile, or lacks what was asked for. Its text is fit for the caller. */
export class ArchiveError extends Error {
  override readonly name = "ArchiveError";
}
