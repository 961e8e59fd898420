import type { MethodDescriptor, MethodName } from "./codec.ts";
import { loadServices } from "./codec.ts";

/** The descriptor of one RPC, typed by its name. */
export function methodNamed<Name extends MethodName>(name: Name): MethodDescriptor<Name> {
  const method: unknown = loadServices().find((candidate) => candidate.name === name);
  if (method === undefined) throw new Error(`no RPC ${name}`);
  return method as MethodDescriptor<Name>;
}

/** A repeatable stream of numbers in [0, 1) (mulberry32): tests with generated input must fail the same way twice. */
export function createRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
