import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadJsonCodecs } from "../cri-api/index.ts";
import type { Call, Logger } from "../cri-api/index.ts";
import type { Container, ContainerIn } from "./container.ts";
import { openRecordStore } from "./record-store.ts";
import type { RecordStore } from "./record-store.ts";
import { containerFormat, sandboxFormat } from "./records.ts";
import type { Sandbox, SandboxIn } from "./sandbox.ts";

/** A logger that says nothing. */
export const silentLog: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => silentLog,
};

/** A call that nobody has given up, unless `signal` says so. */
export function testCall(signal: AbortSignal = new AbortController().signal): Call {
  return { requestId: "test", rpc: "Test", signal, log: silentLog };
}

const codecs = loadJsonCodecs();

/** An id as the room makes them, told apart by `name`. */
export function testId(name: string): string {
  return Buffer.from(name).toString("hex").padEnd(64, "0");
}

/** A pod sandbox in creation; `config` in protobuf's JSON mapping. */
export function testSandbox(name: string, config: object = {}): SandboxIn<"creating"> {
  const metadata = { name, namespace: "default", uid: `uid-${name}` };
  return {
    state: "creating",
    id: testId(name),
    name: `${name}_default_uid-${name}_0`,
    config: codecs.PodSandboxConfig.fromJson({ metadata, ...config }),
    runtimeHandler: "",
    runtime: "crun",
    createdAtNs: 1n,
  };
}

/** A container in creation in a sandbox of `testSandbox`. */
export function testContainer(name: string, sandbox: Sandbox, config: object = {}): ContainerIn<"creating"> {
  return {
    state: "creating",
    id: testId(name),
    sandboxId: sandbox.id,
    name: `${name}_0_${sandbox.id}`,
    config: codecs.ContainerConfig.fromJson({ metadata: { name }, image: { image: "busybox" }, ...config }),
    runtime: "crun",
    createdAtNs: 2n,
    imageId: "image",
    imageRef: "image@digest",
    logPath: "",
    resources: codecs.LinuxContainerResources.fromJson({}),
    stopSignal: 15,
  };
}

/** The same container once its process waits to be started. */
export function inCreated(container: ContainerIn<"creating">): ContainerIn<"created"> {
  const user = { uid: 0, gid: 0, supplementalGroups: [] };
  return { ...container, state: "created", user, init: { pid: 1, startTime: "1" } };
}

/** Empty record stores in a directory that goes with their scope. */
export async function openTestRecords(): Promise<
  AsyncDisposable & { readonly sandboxes: RecordStore<Sandbox>; readonly containers: RecordStore<Container> }
> {
  const directory = await mkdtemp(join(tmpdir(), "berth-records-"));
  return {
    sandboxes: await openRecordStore(directory, sandboxFormat(codecs), silentLog),
    containers: await openRecordStore(directory, containerFormat(codecs), silentLog),
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }),
  };
}
