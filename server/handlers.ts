import type { Call, Init, MethodName, Methods } from "../cri-api/index.ts";

/** Answers one unary RPC; rejects with what the caller shall hear. */
export type UnaryHandler<Name extends MethodName> = (
  call: Call,
  request: Methods[Name]["request"],
) => Promise<Init<Methods[Name]["response"]>>;

/**
 * Answers one server-streaming RPC; ends when the iteration does. Must stop soon after `call.signal` aborts, and is
 * asked for the next message only when the client has taken the last ones.
 */
export type StreamHandler<Name extends MethodName> = (
  call: Call,
  request: Methods[Name]["request"],
) => AsyncIterable<Init<Methods[Name]["response"]>>;

/**
 * Answers one RPC that streams both ways: as {@link StreamHandler}, and the client is held back while it takes no
 * requests. What it does not take is dropped when it ends.
 */
export type DuplexHandler<Name extends MethodName> = (
  call: Call,
  requests: AsyncIterable<Methods[Name]["request"]>,
) => AsyncIterable<Init<Methods[Name]["response"]>>;

type Handler<Name extends MethodName> = Methods[Name] extends { readonly requestStream: true }
  ? DuplexHandler<Name>
  : Methods[Name]["stream"] extends true
    ? StreamHandler<Name>
    : UnaryHandler<Name>;

/** One entry for every RPC named: a new RPC in the contract does not compile until someone decides about it. */
export type HandlerTable<Names extends MethodName = MethodName> = {
  readonly [Name in Names]: Handler<Name> | "unimplemented";
};
