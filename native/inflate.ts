import type { Inflater } from "./binding.ts";
import { getMachine } from "./events.ts";
import { checkValue } from "./syscall-error.ts";

/** How far one step came. */
export interface InflateStep {
  /** Bytes of the input that were used; the rest is to be given again. */
  readonly taken: number;
  /** Bytes that were written to the output; when they fill it, there may be more without further input. */
  readonly given: number;
  /** The input may end here: no member has begun, or the last one is whole and its checksum right. */
  readonly mayEnd: boolean;
}

/** A gzip stream of one or more members, zeros after them included, inflated step by step. */
export interface GzipInflater {
  /**
   * Inflates from `input` into `output`, on this thread: not for the main one. After a failure it is of no further use.
   * @throws {SyscallError} EILSEQ if this is not gzip or its checksum is wrong.
   */
  step(input: Uint8Array, output: Uint8Array): InflateStep;
}

export function createGzipInflater(): GzipInflater {
  const { addon } = getMachine();
  const inflater = checkValue<Inflater>("inflate", addon.inflaterCreate());
  return {
    step(input, output) {
      const [taken, given, mayEnd] = checkValue("inflate", addon.inflate(inflater, input, output));
      return { taken, given, mayEnd: mayEnd === 1 };
    },
  };
}
