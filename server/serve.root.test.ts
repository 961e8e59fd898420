import { lstat, mkdir, readdir, writeFile } from "node:fs/promises";
import { once } from "node:events";
import { createServer } from "node:net";
import type { Socket } from "node:net";
import { constants } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { spawn } from "../native/index.ts";
import type { Child, ExitStatus } from "../native/index.ts";
import { createTestClient, makeScratch } from "./testing.ts";
import type { TestClient } from "./testing.ts";
import { ourEntries } from "./wipe.ts";

const mainPath = fileURLToPath(new URL("./main.ts", import.meta.url));

interface Served extends AsyncDisposable {
  readonly child: Child;
  readonly client: TestClient;
  readonly socket: string;
  readonly log: () => string;
  /** Resolves when all that it said has been read. */
  readonly ended: Promise<ExitStatus>;
}

/** A registry that takes connections and never answers. */
async function listenSilently(): Promise<
  AsyncDisposable & { readonly host: string; readonly connected: Promise<unknown> }
> {
  const server = createServer();
  const sockets: Socket[] = [];
  server.on("connection", (socket) => void sockets.push(socket.on("error", () => undefined)));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  return {
    host: `127.0.0.1:${typeof address === "object" && address ? address.port : 0}`,
    connected: once(server, "connection"),
    async [Symbol.asyncDispose]() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** systemd's side of sd_notify: what was said, one line each. Node itself speaks no datagrams over unix sockets. */
async function listenAsSystemd(socket: string): Promise<AsyncDisposable & { readonly heard: () => string[] }> {
  const program = `use Socket; $| = 1; socket(S, AF_UNIX, SOCK_DGRAM, 0); bind(S, sockaddr_un($ARGV[0])) or die;
    print "bound\n"; while (defined recv(S, $m, 4096, 0)) { print "$m\n" }`;
  const child = await spawn({
    argv: ["/usr/bin/perl", "-e", program, socket],
    env: {},
    stdio: ["null", "pipe-write", "null"],
  });
  let text = "";
  child.stdio[1]?.setEncoding("utf8").on("data", (more: string) => {
    text += more;
  });
  const heard = (): string[] => text.split("\n").filter((line) => line !== "");
  await expect.poll(heard).toEqual(["bound"]);
  return {
    heard: () => heard().slice(1),
    async [Symbol.asyncDispose]() {
      child.kill(constants.signals.SIGKILL);
      await child.exited;
    },
  };
}

/** The daemon as a process of its own, with throwaway state and no network. */
async function startBerth(
  directory: string,
  more = "",
  environment: Readonly<Record<string, string>> = {},
  socket = join(directory, "state", "berth.sock"),
): Promise<Served> {
  await using undo = new AsyncDisposableStack();
  const config = join(directory, "berth.toml");
  await mkdir(join(directory, "cni"), { recursive: true });
  await writeFile(
    config,
    `root = "${directory}/root"\nstate = "${directory}/state"\nsocket = "${socket}"\nlog_level = "debug"\n` +
      `[cni]\nconf_dir = "${directory}/cni"\ncache_dir = "${directory}/cni-cache"\n${more}`,
  );
  const child = await spawn({
    argv: [process.execPath, mainPath, "serve", "--config", config],
    env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", ...environment },
    stdio: ["null", "null", "pipe-write"],
  });
  undo.defer(async () => {
    child.kill(constants.signals.SIGKILL);
    await child.exited;
  });
  const [, , output] = child.stdio;
  if (!output) throw new Error("no pipe");
  let log = "";
  output.setEncoding("utf8").on("data", (text: string) => {
    log += text;
  });
  const ended = once(output, "close").then(() => child.exited);
  const client = undo.use(createTestClient(socket));
  let hasEnded = false;
  void ended.then(() => {
    hasEnded = true;
  });
  await expect.poll(() => hasEnded || log.includes('"listening"')).toBe(true);
  if (hasEnded) throw new Error(log);
  const keep = undo.move();
  return { child, client, socket, log: () => log, ended, [Symbol.asyncDispose]: () => keep.disposeAsync() };
}

test("berth serves both services, and on SIGTERM ends by itself with nothing left running", async () => {
  await using scratch = await makeScratch();
  await using berth = await startBerth(scratch.path);
  expect(await berth.client.unary("Version", {})).toMatchObject({ runtimeName: "berth", runtimeApiVersion: "v1" });
  expect(await berth.client.unary("ListContainers", {})).toEqual({ containers: [] });
  expect(await berth.client.unary("ListImages", {})).toEqual({ images: [] });
  expect((await berth.client.unary("ImageFsInfo", {})).imageFilesystems).toHaveLength(1);
  expect((await lstat(join(scratch.path, "state"))).mode & 0o777).toBe(0o711);
  const made = [...(await readdir(join(scratch.path, "root"))), ...(await readdir(join(scratch.path, "state")))];
  const unknownToWipe = made.filter((name) => name !== "berth.sock" && !ourEntries.has(name));
  expect(unknownToWipe, "wipe would leave these").toEqual([]);

  berth.child.kill(constants.signals.SIGTERM);
  expect(await berth.ended).toEqual({ kind: "exited", code: 0 });
  expect(berth.log()).toContain('"stopped"');
  expect(await readdir(join(scratch.path, "state"))).not.toContain("berth.sock");
});

test("a second daemon on the socket ends with an error, and the first goes on", async () => {
  await using scratch = await makeScratch();
  await using berth = await startBerth(scratch.path);
  await expect(startBerth(scratch.path)).rejects.toThrow(/another server is listening on/);
  expect(await berth.client.unary("Version", {})).toMatchObject({ runtimeName: "berth" });
});

test("a second daemon on another socket but the same state ends with an error, and the first goes on", async () => {
  await using scratch = await makeScratch();
  await using berth = await startBerth(scratch.path);
  const other = join(scratch.path, "other.sock");
  await expect(startBerth(scratch.path, "", {}, other)).rejects.toThrow(/another Berth is at work on/);
  expect(await berth.client.unary("Version", {})).toMatchObject({ runtimeName: "berth" });
});

test("a killed daemon does not keep its state from the next one", async () => {
  await using scratch = await makeScratch();
  const killed = await startBerth(scratch.path);
  killed.child.kill(constants.signals.SIGKILL);
  await killed.child.exited;
  await using next = await startBerth(scratch.path);
  expect(await next.client.unary("Version", {})).toMatchObject({ runtimeName: "berth" });
});

test("systemd is told that we are ready, that we live, and that we stop", async () => {
  await using scratch = await makeScratch();
  const socket = join(scratch.path, "notify");
  await using systemd = await listenAsSystemd(socket);
  await using berth = await startBerth(scratch.path, "", { NOTIFY_SOCKET: socket, WATCHDOG_USEC: "500000" });
  await expect.poll(() => systemd.heard().length).toBeGreaterThan(3);
  berth.child.kill(constants.signals.SIGTERM);
  expect(await berth.ended).toEqual({ kind: "exited", code: 0 });
  await expect.poll(systemd.heard).toContain("STOPPING=1"); // systemd's side may not have got there yet
  const heard = systemd.heard();
  expect(heard.filter((line) => line !== "WATCHDOG=1")).toEqual(["READY=1", "STOPPING=1"]);
  expect(heard.at(-1)).toBe("STOPPING=1");
});

test("a second signal does not wait for the calls in flight", async () => {
  await using scratch = await makeScratch();
  await using silent = await listenSilently();
  const confFile = join(scratch.path, "registries.conf");
  await writeFile(confFile, `[[registry]]\nlocation = "${silent.host}"\ninsecure = true\n`);
  await using berth = await startBerth(scratch.path, `[registries]\nconf_file = "${confFile}"\n`);
  const pull = berth.client.unary("PullImage", { image: { image: `${silent.host}/image:latest` } });
  const failed = expect(pull).rejects.toThrow();
  await silent.connected;
  berth.child.kill(constants.signals.SIGTERM);
  await expect.poll(berth.log).toContain('"stopping"');
  berth.child.kill(constants.signals.SIGTERM);
  expect(await berth.ended).toEqual({ kind: "exited", code: 1 });
  expect(berth.log()).not.toContain("grace time is over");
  await failed;
});
