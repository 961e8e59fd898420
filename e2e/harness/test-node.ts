import path from "node:path";
import { type Daemon, type DaemonOptions, startDaemon } from "./daemon.ts";
import { findTraces, type Traces } from "./leaks.ts";
import { removeNodeNetwork } from "./network.ts";
import { startRegistry } from "./registry.ts";
import { pushTestImages, testImages } from "./test-images.ts";
import { createWorkspace } from "./workspace.ts";

/** A registry with the test images and a daemon that has pulled the plain one, for the long runs outside of vitest. */
export interface TestNode extends AsyncDisposable {
  readonly daemon: Daemon;
  /** What was there before the first pod. */
  readonly empty: Traces;
  image(name: keyof typeof testImages): string;
}

export async function openTestNode(options: Omit<DaemonOptions, "registries"> = {}): Promise<TestNode> {
  await using resources = new AsyncDisposableStack();
  const workspace = resources.use(await createWorkspace());
  const registry = resources.use(await startRegistry(path.join(workspace.directory, "registry")));
  await pushTestImages(path.join(workspace.directory, "images"), registry.address);
  resources.defer(() => removeNodeNetwork(workspace));
  const daemon = resources.use(await startDaemon(workspace, { ...options, registries: [registry.address] }));
  resources.defer(() => removePods(daemon)); // containers outlive a daemon, also that of a run that went wrong
  const image = (name: keyof typeof testImages): string => `${registry.address}/${testImages[name]}`;
  await daemon.client.call("PullImage", { image: { image: image("busybox") } });
  const empty = await findTraces({ workspace, ids: new Set() });
  const kept = resources.move();
  return { daemon, empty, image, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

/** Stops and removes every pod of a daemon. */
export async function removePods({ client }: Daemon): Promise<void> {
  for (const { id } of (await client.call("ListPodSandbox")).items) {
    await client.call("StopPodSandbox", { podSandboxId: id });
    await client.call("RemovePodSandbox", { podSandboxId: id });
  }
}
