import path from "node:path";
import type { TestProject } from "vitest/node";
import { startRegistry } from "./registry.ts";
import { pushTestImages } from "./test-images.ts";
import { createWorkspace } from "./workspace.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** host:port of the registry that holds the test images. */
    registry: string;
  }
}

/** Builds the test images once and serves them to every file of end-to-end tests. */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  await using resources = new AsyncDisposableStack();
  const workspace = resources.use(await createWorkspace());
  const registry = resources.use(await startRegistry(path.join(workspace.directory, "registry")));
  await pushTestImages(path.join(workspace.directory, "images"), registry.address);
  project.provide("registry", registry.address);
  const kept = resources.move();
  return () => kept.disposeAsync();
}
