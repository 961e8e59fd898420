import { createHash } from "node:crypto";
import { once } from "node:events";
import { readdir, readFile, stat } from "node:fs/promises";
import { createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, onTestFinished, test } from "vitest";
import { type Fixture, useDaemon } from "./harness/fixture.ts";
import {
  type CommandClient,
  connectCommand,
  connectPortForward,
  exitCodeOf,
  type ForwardedConnection,
  type PortForwardClient,
  readText,
  type Transport,
  type WantedStreams,
} from "./harness/stream-client.ts";
import { webPage } from "./harness/test-images.ts";
import { waitUntil } from "./harness/wait-until.ts";

const berth: Fixture = useDaemon({ pull: ["busybox", "web"] });
const mebibyte = 1024 * 1024;
const output: WantedStreams = { stdout: true, stderr: true };
const terminal: WantedStreams = { stdin: true, stdout: true, tty: true };

async function exec(
  transport: Transport,
  containerId: string,
  cmd: readonly string[],
  wanted: WantedStreams,
): Promise<CommandClient> {
  const { url } = await berth.call("Exec", { containerId, cmd, ...wanted });
  return await connected(connectCommand(transport, url, wanted));
}

async function attach(transport: Transport, containerId: string, wanted: WantedStreams): Promise<CommandClient> {
  const { url } = await berth.call("Attach", { containerId, ...wanted });
  return await connected(connectCommand(transport, url, wanted));
}

async function connected(connecting: Promise<CommandClient>): Promise<CommandClient> {
  const client = await connecting;
  onTestFinished(() => client.destroy());
  return client;
}

async function forward(podSandboxId: string): Promise<PortForwardClient> {
  const { url } = await berth.call("PortForward", { podSandboxId });
  const client = await connectPortForward(url);
  onTestFinished(() => client.destroy());
  return client;
}

/** Gathers what comes until it holds a text. */
async function readUntil(client: CommandClient, expected: string): Promise<string> {
  let text = "";
  client.stdout.on("data", (chunk: Buffer) => {
    text += chunk.toString();
  });
  return await waitUntil(`"${expected}" in the output`, async () => (text.includes(expected) ? text : undefined));
}

/** A time that nobody else on the machine sleeps for. */
function someSeconds(): string {
  return `7${Math.floor(Math.random() * 1e8)}`;
}

/** Processes of the machine by their command line. */
async function processesWith(commandLine: string): Promise<readonly string[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/u.test(name));
  const lines = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")));
  return lines.map((line) => line.replaceAll("\0", " ").trim()).filter((line) => line === commandLine);
}

async function residentBytes(): Promise<number> {
  const status = await readFile(`/proc/${berth.daemon.pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+) kB/u.exec(status)?.[1]) * 1024;
}

/** The most the daemon held while something ran, sampled. */
async function peakDuring(work: Promise<unknown>): Promise<number> {
  let peak = 0;
  let isOver = false;
  const over = work.finally(() => {
    isOver = true;
  });
  while (!isOver) {
    peak = Math.max(peak, await residentBytes());
    await sleep(20);
  }
  await over;
  return peak;
}

const ways = (["crun", "runc"] as const).flatMap((runtimeHandler) =>
  (["SPDY", "WebSocket"] as const).map((transport) => ({ runtimeHandler, transport })),
);

describe.each(ways)("with $runtimeHandler over $transport", ({ runtimeHandler, transport }) => {
  test("exec: input to its end, both outputs and the exit code", async () => {
    const containerId = await berth.startContainer(await berth.runPod({ runtimeHandler }));
    const cmd = ["sh", "-c", "cat; echo bye >&2; exit 9"];
    const client = await exec(transport, containerId, cmd, { ...output, stdin: true });
    await client.write("said\n");
    client.endInput();
    expect(await Promise.all([readText(client.stdout), readText(client.stderr)])).toEqual(["said\n", "bye\n"]);
    expect(exitCodeOf(await client.status)).toBe(9);
    const killed = await exec(transport, containerId, ["sh", "-c", "kill -TERM $$"], output);
    expect(exitCodeOf(await killed.status)).toBe(143);
    const missing = await exec(transport, containerId, ["no-such-program"], output);
    expect((await missing.status).message).toMatch(/no-such-program/u);
  });

  test("exec on a terminal: resize, an interrupt by key, the exit code", async () => {
    const containerId = await berth.startContainer(await berth.runPod({ runtimeHandler }));
    const seconds = someSeconds();
    const script = `until [ "$(stty size 2>/dev/null)" = '33 111' ]; do sleep 0.05; done; echo resized; sleep ${seconds}; exit 3`;
    const client = await exec(transport, containerId, ["sh", "-c", script], terminal);
    client.resize({ Width: 111, Height: 33 });
    expect(await readUntil(client, "resized")).toBe("resized\r\n");
    await client.write("\x03");
    expect(exitCodeOf(await client.status)).toBe(130);
    expect(await processesWith(`sleep ${seconds}`)).toEqual([]);
  });

  test("exec: a client that disappears takes its command along", async () => {
    const containerId = await berth.startContainer(await berth.runPod({ runtimeHandler }));
    const seconds = someSeconds();
    const cmd = ["sh", "-c", `sleep ${seconds} & echo started; sleep ${seconds}`];
    const client = await exec(transport, containerId, cmd, output);
    await readUntil(client, "started");
    client.destroy();
    await waitUntil("the end of the command", async () =>
      (await processesWith(`sleep ${seconds}`)).length === 0 ? true : undefined,
    );
  });

  test("exec: a process that outlives it keeps running and does not keep the client", async () => {
    const containerId = await berth.startContainer(await berth.runPod({ runtimeHandler }));
    const seconds = someSeconds();
    const client = await exec(transport, containerId, ["sh", "-c", `sleep ${seconds} & echo done; exit 5`], output);
    expect(await readText(client.stdout)).toBe("done\n");
    expect(exitCodeOf(await client.status)).toBe(5);
    await expect.poll(() => processesWith(`sleep ${seconds}`)).toHaveLength(1); // it may not have got as far as that
  });

  test("attach: with stdin_once the end of the input ends the container's", async () => {
    const pod = await berth.runPod({ runtimeHandler });
    const containerId = await berth.startContainer(pod, { command: ["cat"], stdin: true, stdinOnce: true });
    const client = await attach(transport, containerId, { ...output, stdin: true });
    await client.write("once\n");
    client.endInput();
    expect(await readText(client.stdout)).toBe("once\n");
    expect(exitCodeOf(await client.status)).toBe(0);
    expect(await berth.waitForExit(containerId)).toMatchObject({ exitCode: 0 });
    expect(await berth.readLog(containerId)).toEqual(["stdout once"]);
  });

  test("attach: without stdin_once the container's input stays open for the next client", async () => {
    const pod = await berth.runPod({ runtimeHandler });
    const containerId = await berth.startContainer(pod, { command: ["cat"], stdin: true });
    for (const word of ["first", "second"]) {
      const client = await attach(transport, containerId, { ...output, stdin: true });
      await client.write(`${word}\n`);
      client.endInput();
      expect(await readUntil(client, word)).toBe(`${word}\n`); // nothing is replayed
      client.destroy();
    }
    expect(await berth.containerStatus(containerId)).toMatchObject({ state: "CONTAINER_RUNNING" });
  });

  test("attach to a terminal: resize and input", async () => {
    const pod = await berth.runPod({ runtimeHandler });
    const script =
      "until [ \"$(stty size 2>/dev/null)\" = '44 99' ]; do sleep 0.05; done; echo resized; read word; echo got $word";
    const containerId = await berth.startContainer(pod, { command: ["sh", "-c", script], stdin: true, tty: true });
    const client = await attach(transport, containerId, terminal);
    client.resize({ Width: 99, Height: 44 });
    await readUntil(client, "resized");
    const said = readUntil(client, "got it");
    await client.write("it\n");
    expect(await said).toContain("got it");
    await client.status;
    expect(await berth.waitForExit(containerId)).toMatchObject({ exitCode: 0 });
  });

  test("100 MiB each way through one exec, in flat memory", { timeout: 120_000 }, async () => {
    const containerId = await berth.startContainer(await berth.runPod({ runtimeHandler }));
    const client = await exec(transport, containerId, ["cat"], { ...output, stdin: true });
    const before = await residentBytes();
    const block = Buffer.alloc(mebibyte, "0123456789abcdef");
    const sent = createHash("sha256");
    const received = createHash("sha256");
    let receivedBytes = 0;
    const write = async (): Promise<void> => {
      for (let count = 0; count < 100; count++) {
        sent.update(block);
        await client.write(block);
      }
      client.endInput();
    };
    const read = async (): Promise<void> => {
      for await (const chunk of client.stdout as AsyncIterable<Buffer>) {
        received.update(chunk);
        receivedBytes += chunk.length;
      }
    };
    const peak = await peakDuring(Promise.all([write(), read()]));
    expect(receivedBytes).toBe(100 * mebibyte);
    expect(received.digest("hex")).toBe(sent.digest("hex"));
    expect(exitCodeOf(await client.status)).toBe(0);
    expect(peak - before).toBeLessThan(120 * mebibyte);
  });
});

/** Eight lines a hundred times a second at most. */
const chatter =
  "line=$(head -c 1000 /dev/zero | tr '\\0' x); while :; do for i in 1 2 3 4 5 6 7 8; do echo $line; done; sleep 0.01; done";

async function logRate(logPath: string, seconds: number): Promise<number> {
  const before = (await stat(logPath)).size;
  const startedAt = performance.now();
  await sleep(seconds * 1000);
  return ((await stat(logPath)).size - before) / ((performance.now() - startedAt) / 1000);
}

/** The longest time in which nothing came to the log. */
async function longestSilenceMs(logPath: string, forMs: number): Promise<number> {
  let [size, since, longest] = [(await stat(logPath)).size, performance.now(), 0];
  for (const end = since + forMs; performance.now() < end; await sleep(10)) {
    const now = (await stat(logPath)).size;
    longest = Math.max(longest, performance.now() - since);
    if (now > size) [size, since] = [now, performance.now()];
  }
  return longest;
}

test("a container goes on while its client does not read, and the client is dropped", async () => {
  const pod = await berth.runPod();
  const command = ["sh", "-c", "while :; do head -c 262144 /dev/zero | tr '\\0' x; echo; sleep 0.01; done"];
  const containerId = await berth.startContainer(pod, { command });
  const { logPath } = await berth.containerStatus(containerId);
  const client = await attach("SPDY", containerId, { stdout: true });
  const silence = await longestSilenceMs(logPath, 8_000);
  console.log(`longest silence of a container whose client does not read: ${Math.round(silence)} ms`);
  expect(silence).toBeLessThan(5_000); // two seconds of patience for a client, and a busy machine
  await expect(readText(client.stdout)).rejects.toThrow();
  const next = await attach("SPDY", containerId, { stdout: true });
  await readUntil(next, "xxx");
});

test("a stopped daemon does not freeze who is attached to", { timeout: 90_000 }, async () => {
  const pod = await berth.runPod();
  const calm = await berth.startContainer(pod, { command: ["sh", "-c", chatter] });
  const flood = await berth.startContainer(pod, {
    command: ["sh", "-c", "while :; do head -c 262144 /dev/zero | tr '\\0' x; echo; sleep 0.02; done"],
  });
  const [calmLog, floodLog] = await Promise.all(
    [calm, flood].map(async (containerId) => (await berth.containerStatus(containerId)).logPath),
  );
  if (calmLog === undefined || floodLog === undefined) throw new Error("no log");
  const clients = await Promise.all([calm, flood].map((id) => attach("SPDY", id, { stdout: true })));
  for (const client of clients) client.stdout.resume();
  const usual = await logRate(calmLog, 2);
  process.kill(berth.daemon.pid, "SIGSTOP");
  onTestFinished(() => void process.kill(berth.daemon.pid, "SIGCONT"));
  const [rate, silence] = await Promise.all([logRate(calmLog, 10), longestSilenceMs(floodLog, 10_000)]);
  process.kill(berth.daemon.pid, "SIGCONT");
  console.log(
    `beside a stopped daemon: ${Math.round(rate)} of ${Math.round(usual)} B/s, silent for ${Math.round(silence)} ms`,
  );
  expect(rate).toBeGreaterThan(usual / 2);
  expect(silence).toBeLessThan(2_500);
  for (const containerId of [calm, flood]) {
    const next = await attach("SPDY", containerId, { stdout: true });
    await readUntil(next, "xxx");
  }
});

async function fetchThrough({ data, failure }: ForwardedConnection, path = "/"): Promise<string> {
  await data.write(`GET ${path} HTTP/1.0\r\n\r\n`);
  const page = (await readText(data.output)).split("\r\n\r\n")[1] ?? "";
  data.end();
  expect(await failure).toBe("");
  return page;
}

describe.each(["crun", "runc"])("port-forward with %s", (runtimeHandler) => {
  test("reaches the pod's loopback over IPv4 and over IPv6, with many streams at once", async () => {
    const pod = await berth.runPod({ runtimeHandler });
    const command = ["sh", "-c", "httpd -f -p 127.0.0.1:8004 -h /www & httpd -f -p [::1]:8006 -h /www & wait"];
    await berth.startContainer(pod, { image: { image: berth.image("web") }, command });
    const client = await forward(pod.id);
    for (const port of [8004, 8006])
      expect(await waitUntil(`a page from ${port}`, () => fetchThrough(client.connect(port)))).toBe(webPage);
    const pages = await Promise.all(
      Array.from({ length: 100 }, (_, count) => fetchThrough(client.connect(count % 2 === 0 ? 8004 : 8006))),
    );
    expect(new Set(pages)).toEqual(new Set([webPage]));
    expect(await client.connect(8005).failure).toMatch(/8005/u);
    expect(await fetchThrough(client.connect(8004))).toBe(webPage); // one failure is no other connection's
  });
});

test("port-forward reaches a pod on the host's network, and half-closes either way", async () => {
  const linux = { securityContext: { namespaceOptions: { network: "NODE" as const, pid: "CONTAINER" as const } } };
  const pod = await berth.runPod({ config: { linux } });
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => undefined);
    void readText(socket).then((text) => socket.end(text.toUpperCase()));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => void server.close());
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  const { data, failure } = (await forward(pod.id)).connect(address.port);
  await data.write("half ");
  await data.write("closed");
  data.end();
  expect(await readText(data.output)).toBe("HALF CLOSED");
  expect(await failure).toBe("");
});

test("100 MiB through a forwarded port each way, in flat memory", { timeout: 120_000 }, async () => {
  const linux = { securityContext: { namespaceOptions: { network: "NODE" as const, pid: "CONTAINER" as const } } };
  const pod = await berth.runPod({ config: { linux } });
  const server = createServer({ allowHalfOpen: true }, (socket) => void socket.pipe(socket)).listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => void server.close());
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  const { data } = (await forward(pod.id)).connect(address.port);
  const before = await residentBytes();
  const write = async (): Promise<void> => {
    for (let count = 0; count < 100; count++) await data.write(Buffer.alloc(mebibyte, count));
    data.end();
  };
  let received = 0;
  const read = async (): Promise<void> => {
    for await (const chunk of data.output as AsyncIterable<Buffer>) received += chunk.length;
  };
  const peak = await peakDuring(Promise.all([write(), read()]));
  expect(received).toBe(100 * mebibyte);
  expect(peak - before).toBeLessThan(120 * mebibyte);
});
