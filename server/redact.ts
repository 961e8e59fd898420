const longestMessage = 4096;

/**
 * Makes an error's text fit for the wire: no stack trace, no path below the given directories (they are nobody's
 * business but the operator's, who finds them in the log), bounded, and well-formed since gRPC percent-encodes it.
 */
export function createRedactor(directories: readonly string[]): (text: string) => string {
  const names = directories.map((directory) => directory.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const paths = names.length > 0 ? new RegExp(`(?:${names.join("|")})(?![\\w.-])[^\\s"'\`,;:()<>]*`, "g") : undefined;
  return (text) => {
    const [withoutStack = ""] = text.split(/\n\s+at /, 1);
    const hidden = paths ? withoutStack.replace(paths, "[internal path]") : withoutStack;
    return (hidden.length > longestMessage ? `${hidden.slice(0, longestMessage)}…` : hidden).toWellFormed();
  };
}
