import { once } from "node:events";
import { readdir, readFile } from "node:fs/promises";
import { type ClientHttp2Session, connect } from "node:http2";
import { createConnection, type Socket } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import { Code, loadServices } from "../cri-api/index.ts";
import { containerConfig, podConfig } from "./harness/configs.ts";
import { connectClient } from "./harness/cri-client.ts";
import { useDaemon } from "./harness/fixture.ts";
import { timeListsDuring } from "./harness/list-clock.ts";
import { waitUntil } from "./harness/wait-until.ts";

const berth = useDaemon();

const podCount = 110;
const clientCount = 10;

test("110 pods that 10 clients start at once all become ready, and lists go on", { timeout: 300_000 }, async () => {
  const clients = Array.from({ length: clientCount }, () => connectClient(berth.daemon.socketPath));
  const image = berth.image("busybox");
  const startPods = async (client: (typeof clients)[number], first: number): Promise<void> => {
    for (let index = first; index < podCount; index += clientCount) {
      const sandboxConfig = podConfig(berth.workspace, `load${index}`);
      const { podSandboxId } = await client.call("RunPodSandbox", { config: sandboxConfig });
      const config = containerConfig("main", image);
      const { containerId } = await client.call("CreateContainer", { podSandboxId, config, sandboxConfig });
      await client.call("StartContainer", { containerId });
    }
  };
  const medianMs = await timeListsDuring(`${podCount} pods`, berth.daemon.socketPath, () =>
    Promise.all(clients.map(startPods)),
  );
  expect(medianMs).toBeLessThan(50);

  const { containers } = await berth.call("ListContainers", { filter: { state: { state: "CONTAINER_RUNNING" } } });
  expect(containers).toHaveLength(podCount);
  const { items } = await berth.call("ListPodSandbox", { filter: { state: { state: "SANDBOX_READY" } } });
  expect(items).toHaveLength(podCount);
  const statuses = items.map(({ id }) => berth.call("PodSandboxStatus", { podSandboxId: id }));
  const addresses = (await Promise.all(statuses)).map(({ status }) => status?.network?.ip);
  expect(new Set(addresses).size).toBe(podCount);
  for (const client of clients) client[Symbol.dispose]();
  for (let at = 0; at < items.length; at += clientCount)
    await Promise.all(items.slice(at, at + clientCount).map(({ id }) => berth.removePod(id)));
});

describe("a client that means no good", () => {
  const openDescriptors = async (): Promise<number> => (await readdir(`/proc/${berth.daemon.pid}/fd`)).length;
  const residentMiB = async (): Promise<number> => {
    const status = await readFile(`/proc/${berth.daemon.pid}/status`, "utf8");
    return Number(/^VmRSS:\s*(\d+) kB/mu.exec(status)?.[1]) / 1024;
  };

  async function othersAreServed(): Promise<void> {
    const pod = await berth.runPod();
    const containerId = await berth.startContainer(pod);
    expect(await berth.shell(containerId, "echo fine")).toBe("fine");
  }

  /** The kernel lets only so many wait to be accepted, and has the next one try again. */
  async function openSocket(): Promise<Socket> {
    const socket = createConnection(berth.daemon.socketPath);
    await once(socket, "connect");
    onTestFinished(() => void socket.destroy());
    return socket.on("error", () => {});
  }

  async function openSockets(count: number, greeting: Buffer): Promise<readonly Socket[]> {
    const sockets: Socket[] = [];
    while (sockets.length < count) {
      const socket = await waitUntil("a place in the queue", openSocket);
      socket.write(greeting);
      sockets.push(socket);
    }
    return sockets;
  }

  const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  /** The header of a SETTINGS frame that promises more than ever comes. */
  const halfFrame = Buffer.from([0, 0, 60, 4, 0, 0, 0, 0, 0, 0, 1]);

  test.each([
    ["opens 1,000 connections and says nothing", Buffer.alloc(0)],
    ["opens 1,000 connections and sends half a frame on each", Buffer.concat([preface, halfFrame])],
    ["opens 1,000 connections and speaks another protocol", Buffer.from("GET / HTTP/1.1\r\n\r\n")],
  ])("who %s costs little, harms nobody, and leaves nothing open", async (_name, greeting) => {
    await othersAreServed();
    const [before, memoryMiB] = [await openDescriptors(), await residentMiB()];
    const sockets = await openSockets(1_000, greeting);
    await othersAreServed();
    expect((await residentMiB()) - memoryMiB).toBeLessThan(150);
    for (const socket of sockets) socket.destroy();
    await waitUntil("the connections to go", async () => ((await openDescriptors()) <= before + 5 ? true : undefined));
  });

  /** gRPC without a client library: nothing is read before somebody asks. */
  function openSession(initialWindowSize: number): ClientHttp2Session {
    const session = connect("http://localhost", {
      createConnection: () => createConnection(berth.daemon.socketPath),
      settings: { initialWindowSize },
    });
    session.on("error", () => {});
    onTestFinished(() => session.destroy());
    return session;
  }

  const pathOf = (name: string): string => loadServices().find((method) => method.name === name)?.path ?? "";
  const headersOf = (name: string): Record<string, string> => ({
    ":method": "POST",
    ":path": pathOf(name),
    "content-type": "application/grpc",
    te: "trailers",
  });

  test("who sends messages of 64 MiB is refused, one after the other, and memory stays", async () => {
    const memoryMiB = await residentMiB();
    for (let round = 0; round < 4; round++) {
      const version = "x".repeat(64 << 20);
      await expect(berth.call("Version", { version })).rejects.toMatchObject({ code: Code.ResourceExhausted });
    }
    await othersAreServed();
    expect((await residentMiB()) - memoryMiB).toBeLessThan(250);
  });

  test("who calls and never reads is served nothing more, and harms nobody", async () => {
    const [before, memoryMiB] = [await openDescriptors(), await residentMiB()];
    const sessions = Array.from({ length: 20 }, () => openSession(0));
    for (const session of sessions)
      for (let call = 0; call < 50; call++) {
        const stream = session.request(headersOf("ListMetricDescriptors"));
        stream.on("error", () => {});
        stream.end(Buffer.alloc(5));
      }
    await othersAreServed();
    expect((await residentMiB()) - memoryMiB).toBeLessThan(250);
    for (const session of sessions) session.destroy();
    await waitUntil("the sessions to go", async () => ((await openDescriptors()) <= before + 5 ? true : undefined));
    await othersAreServed();
  });

  test("who promises a message and sends half of it waits alone", async () => {
    const session = openSession(65_535);
    const streams = Array.from({ length: 50 }, () => session.request(headersOf("Version")));
    for (const stream of streams) {
      stream.on("error", () => {});
      stream.write(Buffer.from([0, 0, 0, 1, 0, 10, 3])); // of 256 bytes
    }
    await othersAreServed();
    session.destroy();
    await othersAreServed();
  });
});
