import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { loadJsonCodecs } from "../cri-api/index.ts";
import { NewerSchemaError } from "../native/index.ts";
import { endContainer } from "./container-ending.ts";
import type { Container } from "./container.ts";
import { containerFormat, sandboxFormat } from "./records.ts";
import type { Sandbox } from "./sandbox.ts";
import { inCreated, testContainer, testSandbox } from "./testing.ts";

const codecs = loadJsonCodecs();
const sandboxes = sandboxFormat(codecs);
const containers = containerFormat(codecs);

const process = { pid: 4711, startTime: "123456" };
const creatingPod = testSandbox("pod", {
  hostname: "web",
  labels: { app: "web", "__proto__.x": "1" },
  annotations: { state: "stopped", id: "not mine", schemaVersion: "9" },
  linux: { sysctls: { "net.ipv4.ip_unprivileged_port_start": "0" } },
});
const pods: readonly Sandbox[] = [
  creatingPod,
  { ...creatingPod, state: "ready", ips: ["10.0.0.2", "fd00::2"] },
  { ...creatingPod, state: "ready", ips: [], pause: process },
  { ...creatingPod, state: "not-ready", ips: ["10.0.0.2"] },
  { ...creatingPod, state: "stopped", ips: [] },
];

const creating = {
  ...testContainer("web", creatingPod, {
    envs: [{ key: "TOKEN", value: Buffer.from([0, 255, 10]).toString("base64") }],
    linux: { resources: { memoryLimitInBytes: "9007199254740993" } },
  }),
  createdAtNs: 1_795_000_000_123_456_789n,
};
const created = { ...inCreated(creating), init: process, monitor: process };
const ending = {
  startedAtNs: 1n,
  finishedAtNs: 1_795_000_000_123_456_790n,
  exitCode: 255,
  reason: "Error",
  message: "line\n\u2028",
};
const all: readonly Container[] = [
  creating,
  created,
  inCreated(creating),
  { ...created, state: "running", startedAtNs: 5n },
  { ...created, state: "running", startedAtNs: 5n, killAtNs: 1_234_567_890n },
  { ...created, state: "running", startedAtNs: 5n, wantedResources: { ...creating.resources, cpuShares: 512n } },
  endContainer(created, ending),
];

describe("a record", () => {
  it.each(pods)("of a $state pod sandbox is read as it was written", (pod) => {
    expect(sandboxes.parse(sandboxes.serialize(pod))).toEqual(pod);
  });
  it.each(all)("of a $state container is read as it was written", (container) => {
    expect(containers.parse(containers.serialize(container))).toEqual(container);
  });
  it("keeps what users write apart from what this room believes", () => {
    expect(sandboxes.parse(sandboxes.serialize(creatingPod)).state).toBe("creating");
  });
  it("of a newer schema is refused by name, not taken for broken", () => {
    const newer = sandboxes.serialize(creatingPod).replace('"schemaVersion":1', '"schemaVersion":2');
    expect(() => sandboxes.parse(newer)).toThrow(NewerSchemaError);
    expect(() => sandboxes.parse(newer)).toThrow("state of schema 2 was written by a newer Berth");
  });
  it("cut short anywhere is refused", () => {
    const text = containers.serialize(created).trimEnd();
    for (let length = 0; length < text.length; length += 7) {
      expect(() => containers.parse(text.slice(0, length))).toThrow();
    }
  });
  it.each([
    ["no JSON", "\0\0\0\0"],
    ["a list", "[]"],
    ["null", "null"],
    ["no schema version", "{}"],
    ["schema 0", sandboxes.serialize(creatingPod).replace('"schemaVersion":1', '"schemaVersion":0')],
    ["an unknown state", sandboxes.serialize(creatingPod).replace('"creating"', '"dreaming"')],
    ["an id that leaves the directory", sandboxes.serialize(creatingPod).replaceAll(creatingPod.id, "../../etc/x")],
    ["a time that is no number", sandboxes.serialize(creatingPod).replace('"createdAtNs":"1"', '"createdAtNs":"1e9"')],
    ["a config that is none", sandboxes.serialize(creatingPod).replace(/"config":\{/, '"config":7,"x":{')],
  ])("with %s is refused", (_, text) => {
    expect(() => sandboxes.parse(text)).toThrow();
  });
});

describe("a record of schema 1", async () => {
  const directory = join(import.meta.dirname, "testdata/v1");
  const files = await readdir(directory);
  const read = (file: string): Promise<string> => readFile(join(directory, file), "utf8");

  it.each(files.filter((file) => file.startsWith("sandbox-")))("is still read: %s", async (file) => {
    const pod = sandboxes.parse(await read(file));
    expect(`sandbox-${pod.state}.json`).toBe(file);
    expect(pod).toMatchObject({
      name: "web_default_uid-web_0",
      config: { metadata: { name: "web" } },
      runtime: "crun",
    });
  });
  it.each(files.filter((file) => file.startsWith("container-")))("is still read: %s", async (file) => {
    const container = containers.parse(await read(file));
    expect(`container-${container.state}.json`).toBe(file);
    expect(container).toMatchObject({ config: { image: { image: "busybox" } }, stopSignal: 15 });
  });
  it("is there of every state", () => {
    expect(files).toHaveLength(8);
  });
});
