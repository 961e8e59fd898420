import { Duplex } from "node:stream";
import type { WebSocket } from "ws";

const highWaterBytes = 64 * 1024;
const normalClosure = 1000;
const unsupportedData = 1003;

/** The bytes of the binary messages of a WebSocket as one stream; message borders mean nothing. */
export function createTunnel(socket: WebSocket): Duplex {
  const send = (chunk: Buffer, callback: (error?: Error | null) => void): void => {
    if (socket.readyState === socket.OPEN) socket.send(chunk, { binary: true }, callback);
    else callback(); // the peer has said goodbye; an error would break off the answer to that
  };
  const duplex = new Duplex({
    highWaterMark: highWaterBytes,
    read: () => socket.resume(),
    write: (chunk: Buffer, _encoding, callback) => send(chunk, callback),
    writev: (entries, callback) => send(Buffer.concat(entries.map(({ chunk }: { chunk: Buffer }) => chunk)), callback),
    final(callback) {
      socket.close(normalClosure);
      callback();
    },
    destroy(error, callback) {
      if (socket.readyState !== socket.CLOSED) socket.terminate();
      callback(error);
    },
  });
  socket.on("message", (data, isBinary) => {
    if (!isBinary) {
      socket.close(unsupportedData);
      duplex.destroy(new Error("text message in a tunnel"));
    } else if (!duplex.push(data)) {
      socket.pause();
    }
  });
  socket.on("error", (error) => duplex.destroy(error));
  socket.on("close", () => {
    if (!duplex.destroyed) duplex.push(null);
  });
  return duplex;
}
