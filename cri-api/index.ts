/** A failure the caller can act on, the gRPC status it carries, and the one mapping of anything thrown to it. */
export { Code, CriError, errnoOf, toCriError } from "./errors.ts";
/** One RPC in flight, and what a room needs of a logger. */
export type { Call, Logger } from "./call.ts";
/** Decoded messages: every scalar present, int64 as bigint, enums as their names, absent messages null. */
export type * as cri from "./messages.ts";
/** The messages of our own service, as the command line and the daemon exchange them. */
export type * as berth from "./berth-messages.ts";
/** Deep-partial input of the encoders. */
export type { Init } from "./init.ts";
/** Every RPC of `runtime.v1` v0.37, and of our own `berth.v1`, with its codecs. */
export { loadServices } from "./codec.ts";
export type { MethodDescriptor, MethodName, Methods, ServiceName } from "./codec.ts";
/** The messages that records on disk hold, as plain JSON and back. */
export { loadJsonCodecs } from "./json.ts";
export type { JsonCodec, JsonCodecs } from "./json.ts";
