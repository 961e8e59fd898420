/** What a room needs of a logger; pino's satisfies it. Text is fixed and lower-case, values are fields. */
export interface Logger {
  debug(fields: object, text: string): void;
  info(fields: object, text: string): void;
  warn(fields: object, text: string): void;
  error(fields: object, text: string): void;
  child(fields: object): Logger;
}

/** One RPC in flight. `signal` joins the client's abort, the gRPC deadline and the daemon's shutdown. */
export interface Call {
  readonly requestId: string;
  readonly rpc: string;
  readonly signal: AbortSignal;
  readonly log: Logger;
}
