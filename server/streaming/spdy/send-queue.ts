import type { Duplex } from "node:stream";
import { defaultWindowBytes, encodeDataHead } from "./frames.ts";

/** Long frames would let one stream hold the connection; Go's reader allocates a frame at once. */
const maxFrameBytes = 32 * 1024;
const maxWindowBytes = 0x7fff_ffff;

/** One stream's place in the queue: at most one write at a time, `done` once its last byte is on its way. */
interface Lane {
  readonly streamId: number;
  windowBytes: number;
  pending: { readonly rest: Buffer; readonly done: () => void } | undefined;
}

export interface SendQueue {
  open(streamId: number): void;
  close(streamId: number): void;
  /** Sends the bytes in turn with other streams, as fast as the peer takes them. */
  send(streamId: number, bytes: Buffer, done: () => void): void;
  /** @returns false if the window grew past what the protocol can count. */
  grow(streamId: number, deltaBytes: number): boolean;
  setInitialWindow(bytes: number): void;
}

/** The window of a stream, or of the session, and whether the peer has shown that it keeps it. */
interface Windows {
  sessionBytes: number;
  initialBytes: number;
  isSessionKept: boolean;
  areStreamsKept: boolean;
}

/**
 * Sends data frames in turn, one frame a stream, only while the transport takes them: what waits, waits in the
 * streams' own buffers.
 *
 * The windows of SPDY bind us only once the peer has shown that it keeps them, by a SETTINGS or WINDOW_UPDATE frame:
 * the Go library behind crictl, kubelet and kubectl never sends either, and would stop at 64 KiB for ever. It relies
 * on the back-pressure of TCP, which holds for everybody.
 */
export function createSendQueue(transport: Duplex, onSent: () => void): SendQueue {
  const lanes = new Map<number, Lane>();
  const windows: Windows = {
    sessionBytes: defaultWindowBytes,
    initialBytes: defaultWindowBytes,
    isSessionKept: false,
    areStreamsKept: false,
  };
  const turns = createTurns(transport, windows, onSent);

  return {
    open: (streamId) => void lanes.set(streamId, { streamId, windowBytes: windows.initialBytes, pending: undefined }),
    close(streamId) {
      const lane = lanes.get(streamId);
      if (lane !== undefined) turns.forget(lane);
      lanes.delete(streamId);
    },
    send(streamId, bytes, done) {
      const lane = lanes.get(streamId);
      if (lane === undefined) return;
      lane.pending = { rest: bytes, done };
      turns.offer(lane);
      turns.flush();
    },
    grow(streamId, deltaBytes) {
      const lane = lanes.get(streamId);
      if (streamId === 0) {
        windows.isSessionKept = true;
        windows.sessionBytes += deltaBytes;
        for (const each of lanes.values()) turns.offer(each);
      } else {
        windows.areStreamsKept = true;
        if (lane !== undefined) lane.windowBytes += deltaBytes;
        if (lane !== undefined) turns.offer(lane);
      }
      turns.flush();
      return windows.sessionBytes <= maxWindowBytes && (lane?.windowBytes ?? 0) <= maxWindowBytes;
    },
    setInitialWindow(bytes) {
      windows.areStreamsKept = true;
      for (const lane of lanes.values()) {
        lane.windowBytes += bytes - windows.initialBytes;
        turns.offer(lane);
      }
      windows.initialBytes = bytes;
      turns.flush();
    },
  };
}

/** The lanes that have something to send, in the order of their turns. */
function createTurns(
  transport: Duplex,
  windows: Windows,
  onSent: () => void,
): { offer(lane: Lane): void; forget(lane: Lane): void; flush(): void } {
  const ready = new Set<Lane>();
  let isFlushing = false;

  const budgetOf = (lane: Lane): number => {
    const streamBytes = windows.areStreamsKept ? lane.windowBytes : maxFrameBytes;
    const sessionBytes = windows.isSessionKept ? windows.sessionBytes : maxFrameBytes;
    return Math.min(streamBytes, sessionBytes, maxFrameBytes);
  };
  const offer = (lane: Lane): void => {
    if (lane.pending !== undefined) ready.add(lane);
  };
  const takeTurn = (lane: Lane): void => {
    ready.delete(lane);
    const budget = budgetOf(lane);
    if (lane.pending === undefined || budget <= 0) return;
    const { done, rest } = lane.pending;
    const piece = rest.subarray(0, budget);
    lane.windowBytes -= piece.length;
    windows.sessionBytes -= piece.length;
    transport.cork();
    transport.write(encodeDataHead(lane.streamId, piece.length, false));
    transport.write(piece);
    transport.uncork();
    onSent();
    const isSent = piece.length === rest.length;
    lane.pending = isSent ? undefined : { rest: rest.subarray(piece.length), done };
    offer(lane);
    if (isSent) done();
  };
  const flush = (): void => {
    if (isFlushing) return; // done() may offer the next write at once
    isFlushing = true;
    while (!transport.writableNeedDrain && !transport.destroyed) {
      const lane = ready.values().next().value;
      if (lane === undefined) break;
      takeTurn(lane);
    }
    isFlushing = false;
  };
  transport.on("drain", flush);
  return { offer, forget: (lane) => void ready.delete(lane), flush };
}
