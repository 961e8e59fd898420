import * as v from "valibot";
import type { TerminalSize } from "./backend.ts";

const dimension = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(0xffff));
const sizeSchema = v.object({ Width: dimension, Height: dimension });
const maxPendingChars = 1024;

/**
 * Cuts a resize stream into sizes. Go's clients write one JSON object a line, those over WebSocket one a message;
 * both end with a brace. What makes no sense is skipped.
 */
export function createSizeReader(onSize: (size: TerminalSize) => void): (chunk: Buffer) => void {
  let pending = "";
  return (chunk) => {
    const texts = (pending + chunk.toString("utf8")).split("}");
    pending = (texts.pop() ?? "").slice(0, maxPendingChars);
    for (const text of texts) {
      const size = parseSize(`${text}}`);
      if (size !== undefined) onSize(size);
    }
  };
}

function parseSize(text: string): TerminalSize | undefined {
  try {
    const { Width: width, Height: height } = v.parse(sizeSchema, JSON.parse(text));
    return { width, height };
  } catch {
    return undefined;
  }
}
