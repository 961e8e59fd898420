/** A layer that is malformed, hostile or beyond a limit. Its text is fit for the caller. */
export class LayerError extends Error {
  override readonly name = "LayerError";
}
