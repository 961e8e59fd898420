import { Code, CriError } from "../cri-api/index.ts";

/**
 * What the spec's codes mean to a CRI caller. A wrong configuration or plugin on the node is `FailedPrecondition`:
 * the call can succeed only after somebody mends the node. What may pass by itself is `Unavailable`. Anything else,
 * plugins' own codes from 100 included, is `Internal`.
 *
 * @see https://github.com/containernetworking/cni/blob/spec-v1.1.0/SPEC.md#error
 */
const codeByCniCode: Readonly<Partial<Record<number, Code>>> = {
  1: Code.FailedPrecondition, // incompatible CNI version
  2: Code.FailedPrecondition, // unsupported field in the configuration
  3: Code.FailedPrecondition, // container unknown or gone
  4: Code.FailedPrecondition, // invalid environment variables
  5: Code.Internal, // I/O failure
  6: Code.FailedPrecondition, // configuration cannot be decoded
  7: Code.FailedPrecondition, // invalid network configuration
  11: Code.Unavailable, // try again later
  50: Code.Unavailable, // cannot serve ADD now
  51: Code.Unavailable, // the same, and existing pods may have lost connectivity
};

export interface PluginFailure {
  readonly cniCode: number | undefined;
  readonly words: string;
}

export function toPluginError(what: string, failure: PluginFailure): CriError {
  const code = codeByCniCode[failure.cniCode ?? 0] ?? Code.Internal;
  return new CriError(code, `${what}: ${failure.words}`);
}
