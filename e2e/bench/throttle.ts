import { connect, createServer, type Socket } from "node:net";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";

/** A way to a server on which each connection gets the same few bytes a second, however many there are. */
export interface Throttle extends AsyncDisposable {
  /** host:port. */
  readonly address: string;
}

/** What a connection that paused may catch up on. */
const burstMs = 20;

/** Tells a connection how many milliseconds to wait for each chunk that it wants to send at `nowMs`. */
export function createTokenBucket(bytesPerSecond: number): (bytes: number, nowMs: number) => number {
  let freeAtMs = Number.NEGATIVE_INFINITY;
  return (bytes, nowMs) => {
    freeAtMs = Math.max(freeAtMs, nowMs - burstMs) + (bytes * 1000) / bytesPerSecond;
    return Math.max(freeAtMs - nowMs, 0);
  };
}

/** Starts it on a free port of loopback in front of `upstream` (host:port); what clients send is not slowed down. */
export async function startThrottle(upstream: string, bytesPerSecond: number): Promise<Throttle> {
  const [host = "", port = ""] = upstream.split(":");
  const open = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (client) => {
    const origin = connect({ host, port: Number(port), allowHalfOpen: true });
    for (const socket of [client, origin]) open.add(socket.once("close", () => open.delete(socket)));
    const take = createTokenBucket(bytesPerSecond);
    async function* pace(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void> {
      for await (const chunk of source) {
        const waitMs = take(chunk.length, performance.now());
        if (waitMs > 0) await sleep(waitMs);
        yield chunk;
      }
    }
    // When one side breaks off, so does the other: that is all there is to say to either.
    void Promise.allSettled([pipeline(client, origin), pipeline(origin, pace, client)]);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return {
    address: `127.0.0.1:${address.port}`,
    async [Symbol.asyncDispose]() {
      for (const socket of open) socket.destroy();
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
    },
  };
}
