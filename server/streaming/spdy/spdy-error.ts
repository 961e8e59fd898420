/** GOAWAY statuses of SPDY/3.1 by name. */
export const goawayStatuses = { OK: 0, PROTOCOL_ERROR: 1, INTERNAL_ERROR: 2 } as const;

/** RST_STREAM statuses of SPDY/3.1 by name. */
export const resetStatuses = {
  PROTOCOL_ERROR: 1,
  INVALID_STREAM: 2,
  REFUSED_STREAM: 3,
  UNSUPPORTED_VERSION: 4,
  CANCEL: 5,
  INTERNAL_ERROR: 6,
  FLOW_CONTROL_ERROR: 7,
  STREAM_IN_USE: 8,
  STREAM_ALREADY_CLOSED: 9,
  FRAME_TOO_LARGE: 11,
} as const;

export type GoawayStatus = keyof typeof goawayStatuses;
export type ResetStatus = keyof typeof resetStatuses;

/** The peer broke the protocol in a way that ends the whole connection. */
export class SpdyError extends Error {
  override readonly name = "SpdyError";
  readonly status: GoawayStatus;
  constructor(status: GoawayStatus, message: string) {
    super(message);
    this.status = status;
  }
}
