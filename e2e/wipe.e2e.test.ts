import { readdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { expect, inject, test } from "vitest";
import { containerConfig, podConfig } from "./harness/configs.ts";
import { type Daemon, startDaemon } from "./harness/daemon.ts";
import { findTraces, waitForNoLeaks } from "./harness/leaks.ts";
import { isOfNode, removeNodeNetwork } from "./harness/network.ts";
import { nodeProgram, repository } from "./harness/repository.ts";
import { tryCommand } from "./harness/run-command.ts";
import { testImages } from "./harness/test-images.ts";
import { createWorkspace, type Workspace } from "./harness/workspace.ts";

function wipe(workspace: Workspace, ...flags: readonly string[]): ReturnType<typeof tryCommand> {
  const config = path.join(workspace.directory, "berth.toml");
  return tryCommand([nodeProgram, path.join(repository, "server/main.ts"), "wipe", "--config", config, ...flags]);
}

async function runSomething({ client, workspace }: Daemon): Promise<void> {
  const image = `${inject("registry")}/${testImages.busybox}`;
  await client.call("PullImage", { image: { image } });
  const sandboxConfig = podConfig(workspace, "wiped");
  const { podSandboxId } = await client.call("RunPodSandbox", { config: sandboxConfig });
  const config = containerConfig("wiped", image);
  const { containerId } = await client.call("CreateContainer", { podSandboxId, config, sandboxConfig });
  await client.call("StartContainer", { containerId });
}

test("wipe refuses a live daemon and running containers; forced, it leaves nothing", async () => {
  await using resources = new AsyncDisposableStack();
  const workspace = resources.use(await createWorkspace());
  resources.defer(() => removeNodeNetwork(workspace));
  const daemon = resources.use(await startDaemon(workspace, { registries: [inject("registry")] }));
  const scope = { workspace, ids: daemon.client.seenIds };
  const before = await findTraces(scope);
  await runSomething(daemon);

  expect(await wipe(workspace, "--force")).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("listening") });
  await daemon.stop("SIGKILL");
  const refused = await wipe(workspace);
  expect(refused.exitCode).toBe(1);
  expect(refused.stderr).toContain("nothing was wiped: 1 containers are running; --force kills them");

  expect(await wipe(workspace, "--force")).toMatchObject({ exitCode: 0, stdout: "1 pods and 1 images removed\n" });
  const isExpected = (line: string): boolean => isOfNode(workspace, line);
  expect(await waitForNoLeaks(before, scope, { isExpected })).toEqual([]);
  expect(await readdir(workspace.directory)).not.toEqual(expect.arrayContaining(["root", "state"]));

  await daemon.start(); // from nothing
  expect((await daemon.client.call("ListPodSandbox")).items).toEqual([]);
  expect((await daemon.client.call("ListImages")).images).toEqual([]);
});

test("wipe leaves what is not ours, and says so", async () => {
  await using workspace = await createWorkspace();
  const daemon = await startDaemon(workspace, { registries: [] });
  await daemon[Symbol.asyncDispose]();
  const strange = path.join(workspace.root, "precious");
  await writeFile(strange, "do not lose this");
  const { exitCode, stderr } = await wipe(workspace);
  expect(exitCode).toBe(1);
  expect(stderr).toContain(`"${strange}" is not ours, it was left`);
  expect(await readdir(workspace.root)).toEqual(["precious"]);
});
