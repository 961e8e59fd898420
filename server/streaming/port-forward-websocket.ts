import type { WebSocket } from "ws";
import type { StreamingBackend } from "./backend.ts";
import { forwardConnection } from "./port-forward.ts";
import type { StreamSession } from "./session.ts";
import { createChannelSocket } from "./websocket-channels.ts";

/** Forwards one connection a port: channel 2n carries the data of the nth port, channel 2n + 1 its error. */
export async function servePortForwardChannels(
  session: StreamSession,
  socket: WebSocket,
  backend: StreamingBackend,
  request: { readonly podSandboxId: string; readonly ports: readonly number[]; readonly isBase64: boolean },
): Promise<void> {
  const format = { isBase64: request.isBase64, hasCloseSignal: false };
  const channels = createChannelSocket(socket, format, () => session.touch());
  void channels.closed.then(() => session.end(new Error("client has disconnected")));

  const forwards = request.ports.map((port, index) => {
    const data = channels.channel(index * 2);
    const error = channels.channel(index * 2 + 1);
    const portBytes = Buffer.alloc(2);
    portBytes.writeUInt16LE(port);
    data.write(portBytes);
    error.write(portBytes);
    return forwardConnection(session, backend, { podSandboxId: request.podSandboxId, port, data, error });
  });
  await Promise.allSettled(forwards);
  channels.close();
  await channels.closed;
}
