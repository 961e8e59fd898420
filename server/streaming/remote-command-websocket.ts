import type { WebSocket } from "ws";
import type { CommandProtocol } from "./protocols.ts";
import type { CommandChannels } from "./remote-command.ts";
import type { WantedStreams } from "./remote-command-spdy.ts";
import type { StreamSession } from "./session.ts";
import { type CommandStatus, encodeStatus } from "./status.ts";
import { createChannelSocket } from "./websocket-channels.ts";

/** Channel numbers of the remote command protocols. */
const channelNumbers = { stdin: 0, stdout: 1, stderr: 2, error: 3, resize: 4 } as const;

/** The channels of a command: over a WebSocket they are there from the start. */
export function openWebSocketChannels(
  session: StreamSession,
  socket: WebSocket,
  wanted: WantedStreams,
  protocol: CommandProtocol,
): CommandChannels {
  const channels = createChannelSocket(socket, protocol, () => session.touch());
  void channels.closed.then(() => session.end(new Error("client has disconnected")));

  const stdin = channels.channel(channelNumbers.stdin);
  const stdout = channels.channel(channelNumbers.stdout);
  const stderr = channels.channel(channelNumbers.stderr);
  const error = channels.channel(channelNumbers.error);
  const resize = channels.channel(channelNumbers.resize);
  for (const unread of [stdout, stderr, error, ...(wanted.stdin ? [] : [stdin])]) unread.resume();

  // Clients in browsers take the first message for the sign that the command runs.
  const first = wanted.stdout ? "stdout" : wanted.stderr ? "stderr" : "error";
  socket.send(protocol.isBase64 ? String(channelNumbers[first]) : Buffer.from([channelNumbers[first]]));

  return {
    stdin: wanted.stdin ? stdin : undefined,
    stdout: wanted.stdout ? stdout : undefined,
    stderr: wanted.stderr ? stderr : undefined,
    resize,
    async finish(status: CommandStatus) {
      await Promise.allSettled([ended(stdout), ended(stderr)]);
      const bytes = encodeStatus(status, protocol.hasJsonStatus);
      if (bytes.length > 0) error.write(bytes);
      await ended(error).catch(() => undefined);
      channels.close();
      await channels.closed;
    },
  };
}

async function ended(channel: NodeJS.WritableStream): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  channel.once("close", () => resolve());
  channel.end(() => resolve());
  return promise;
}
