import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { StoredImage } from "../image-service/index.ts";
import { createCdiRegistry } from "../oci/index.ts";
import { createFakeRuntime } from "../oci/testing.ts";
import type { FakeRuntime } from "../oci/testing.ts";
import type { Host, Images, Network } from "./host.ts";
import { readHostFacts } from "./host-facts.ts";
import { openHost } from "./runtime-service.ts";
import { silentLog } from "./testing.ts";

/** A network that takes down what it was asked for in `journal`, and fails where `fail` says so. */
export interface FakeNetwork extends Network {
  readonly journal: string[];
  readonly fail: Partial<Record<"add" | "del" | "collectGarbage" | "endStrayPlugins", Error>>;
  /** Set, ADD hangs until its caller gives it up. */
  hangs: boolean;
}

export function createFakeNetwork(): FakeNetwork {
  const fake: FakeNetwork = {
    journal: [],
    fail: {},
    hangs: false,
    status: () => ({ ready: true, networkName: "test", skipped: [] }),
    async add(call, { containerId }) {
      fake.journal.push(`add ${containerId}`);
      if (fake.hangs) await rejectOnAbort(call.signal);
      if (fake.fail.add) throw fake.fail.add;
      return { ips: ["10.0.0.2"], raw: {} };
    },
    async del({ containerId }) {
      fake.journal.push(`del ${containerId}`);
      if (fake.fail.del) throw fake.fail.del;
    },
    async endStrayPlugins(containerIds) {
      fake.journal.push(`end ${containerIds.join(" ")}`);
      if (fake.fail.endStrayPlugins) throw fake.fail.endStrayPlugins;
      return 0;
    },
    async collectGarbage(attachments) {
      fake.journal.push(`gc ${attachments.map(({ containerId }) => containerId).join(" ")}`);
      if (fake.fail.collectGarbage) throw fake.fail.collectGarbage;
    },
  };
  return fake;
}

async function rejectOnAbort(signal: AbortSignal): Promise<never> {
  const { promise, reject } = Promise.withResolvers<never>();
  signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  if (signal.aborted) reject(signal.reason);
  return await promise;
}

/** One image, "busybox", whose root filesystems are empty directories. */
export interface FakeImages extends Images {
  readonly fail: Partial<Record<"requireAllowed" | "createRootfs" | "removeRootfs", Error>>;
}

export function createFakeImages(): FakeImages {
  const roots = new Set<string>();
  const config = {
    entrypoint: [],
    cmd: ["sleep", "1000"],
    env: [],
    workingDir: "",
    user: "",
    stopSignal: "",
    volumes: [],
  };
  const image = { id: "sha256:image", config, repoDigests: [] } as unknown as StoredImage; // what this room reads of it
  const fake: FakeImages = {
    fail: {},
    resolveImage: (reference) => (reference === "busybox" ? image : undefined),
    async requireAllowed() {
      if (fake.fail.requireAllowed) throw fake.fail.requireAllowed;
    },
    async createRootfs(containerId, _imageId, target) {
      await mkdir(target, { recursive: true });
      roots.add(containerId);
      if (fake.fail.createRootfs) throw fake.fail.createRootfs;
    },
    async mountDeclaredVolume(_containerId, { target }) {
      await mkdir(target, { recursive: true });
    },
    async mountVolume(_containerId, _imageId, target) {
      await mkdir(target, { recursive: true });
    },
    async removeRootfs(containerId, target) {
      if (fake.fail.removeRootfs) throw fake.fail.removeRootfs;
      await rm(target, { recursive: true, force: true });
      roots.delete(containerId);
    },
    rootfsUsage: () => undefined,
    rootfsIds: () => [...roots],
    pullsInProgress: () => [],
    registryProblems: () => [],
  };
  return fake;
}

/** All of the room on a directory of its own, with nothing below it but fakes. */
export interface TestHost extends Host, AsyncDisposable {
  readonly directory: string;
  readonly runtime: FakeRuntime;
  readonly network: FakeNetwork;
  readonly images: FakeImages;
}

/** @param before Takes over the directory of a host whose daemon is gone. */
export async function openTestHost(before?: Pick<TestHost, "directory">): Promise<TestHost> {
  const directory = before?.directory ?? (await mkdtemp(join(tmpdir(), "berth-pods-")));
  const [runtime, network, images] = [createFakeRuntime("crun"), createFakeNetwork(), createFakeImages()];
  const host = await openHost({
    config: {
      root: join(directory, "root"),
      state: join(directory, "state"),
      cgroupDriver: "cgroupfs",
      defaultRuntime: "crun",
      imageVolumes: "mkdir",
      runtimeVersion: "0.0.0",
    },
    runtimes: new Map([["crun", runtime]]),
    network,
    images,
    cdi: createCdiRegistry({ specDirs: [], log: silentLog }),
    facts: await readHostFacts(undefined),
    log: silentLog,
  });
  return {
    ...host,
    directory,
    runtime,
    network,
    images,
    async [Symbol.asyncDispose]() {
      await host.creations.abandonAll("the test is over");
      await host.exits[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true });
    },
  };
}
