import { chmod, lstat, mkdir, rename, rm } from "node:fs/promises";
import type { Stats } from "node:fs";
import type { IncomingHttpHeaders } from "node:http2";
import { createConnection } from "node:net";
import { ServerCredentials } from "@grpc/grpc-js";
import type { Server } from "@grpc/grpc-js";
import { errnoOf } from "../cri-api/index.ts";

const socketMode = 0o660;
const directoryMode = 0o711;

async function statOf(path: string): Promise<Stats | undefined> {
  return await lstat(path).catch((thrown: unknown) => {
    if (errnoOf(thrown) === "ENOENT") return undefined;
    throw thrown;
  });
}

/** A listener whose backlog is full answers EAGAIN, and lives; only a refusal says that nobody listens. */
async function isLive(path: string): Promise<boolean> {
  const connection = createConnection({ path });
  const { promise, resolve } = Promise.withResolvers<boolean>();
  connection.once("connect", () => resolve(true));
  connection.once("error", (error) => resolve(!["ECONNREFUSED", "ENOENT"].includes(errnoOf(error) ?? "")));
  const live = await promise;
  connection.destroy();
  return live;
}

/**
 * Makes sure that the path is free or holds a dead socket.
 *
 * @throws {Error} where a server listens on it, or something that is no socket is in the way.
 */
export async function refuseLiveListener(path: string): Promise<void> {
  const stats = await statOf(path);
  if (!stats) return;
  if (!stats.isSocket()) throw new Error(`"${path}" exists and is not a socket`);
  if (await isLive(path)) throw new Error(`another server is listening on "${path}"`);
}

/** A directory that others may pass through, but not look into. One that was there before is left as it is. */
export async function makePassage(directory: string): Promise<void> {
  const made = await mkdir(directory, { recursive: true, mode: directoryMode });
  if (made !== undefined) await chmod(directory, directoryMode); // mkdir's mode passed the umask
}

const timeoutUnitsMs: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 1e-3, n: 1e-6 };
const longestTimeoutMs = 2 ** 31 - 1;

function clampTimeout(headers: IncomingHttpHeaders): void {
  const [, digits, unit] = /^(\d{1,8})([HMSmun])$/.exec(String(headers["grpc-timeout"])) ?? [];
  const timeoutMs = Number(digits) * (timeoutUnitsMs[unit ?? ""] ?? 0);
  if (timeoutMs > longestTimeoutMs) headers["grpc-timeout"] = `${Math.floor(longestTimeoutMs / 1000)}S`;
}

/**
 * grpc-js keeps deadlines in 32 bits of milliseconds, so one beyond 24.8 days has passed at once; kubelet sends such for
 * StopContainer of a pod with a grace period of months. There is no hook before its own parsing but the HTTP/2 server.
 */
function clampTimeouts(server: Server): void {
  const servers: unknown = Reflect.get(server, "http2Servers");
  if (!(servers instanceof Map)) throw new Error("grpc-js no longer keeps its HTTP/2 servers in http2Servers");
  for (const http2Server of servers.keys() as Iterable<NodeJS.EventEmitter>) {
    http2Server.prependListener("stream", (_stream: unknown, headers: IncomingHttpHeaders) => clampTimeout(headers));
  }
}

async function bind(server: Server, path: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.bindAsync(`unix:${path}`, ServerCredentials.createInsecure(), (error) => (error ? reject(error) : resolve()));
  await promise;
}

/** A bound socket; `close` removes its file, unless another took the place. */
export interface Listener {
  close(): Promise<void>;
}

/**
 * Listens on a unix socket with mode 0660. It is bound under another name and then moved, so that it is never seen with
 * a wider mode, and a dead socket is replaced in one step.
 *
 * @throws {Error} as refuseLiveListener.
 */
export async function listenOnSocket(server: Server, path: string): Promise<Listener> {
  await refuseLiveListener(path);
  const fresh = `${path}.new`;
  await rm(fresh, { force: true });
  await bind(server, fresh);
  clampTimeouts(server);
  await chmod(fresh, socketMode);
  const { ino } = await lstat(fresh);
  await rename(fresh, path);
  return {
    async close() {
      const stats = await statOf(path);
      if (stats?.ino === ino) await rm(path, { force: true });
    },
  };
}
