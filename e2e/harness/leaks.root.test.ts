import { spawn } from "node:child_process";
import { mkdir, rmdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { expect, test } from "vitest";
import { compareTraces, findTraces } from "./leaks.ts";
import { runCommand } from "./run-command.ts";
import { createWorkspace } from "./workspace.ts";

test("one of each kind that is left behind is found and named", async () => {
  await using workspace = await createWorkspace();
  await using planted = new AsyncDisposableStack();
  const scope = { workspace, ids: new Set(["feedface"]) };
  const before = await findTraces(scope);
  expect(compareTraces(before, await findTraces(scope))).toEqual([]);

  const mountPoint = path.join(workspace.state, "mounted");
  await mkdir(mountPoint, { recursive: true });
  await runCommand(["mount", "-t", "tmpfs", "planted", mountPoint]);
  planted.defer(() => runCommand(["umount", mountPoint]).then(() => undefined));

  const parent = `/sys/fs/cgroup/pids${workspace.cgroupParent}`;
  await mkdir(`${parent}/left`, { recursive: true });
  planted.defer(async () => {
    await rmdir(`${parent}/left`);
    await rmdir(parent);
  });

  const sleeper = spawn("sh", ["-c", "exec setsid --fork sleep 60"], { stdio: "ignore" });
  await new Promise((resolve) => sleeper.once("close", resolve));
  await runCommand(["ip", "link", "add", "planted0", "type", "bridge"]);
  planted.defer(() => runCommand(["ip", "link", "delete", "planted0"]).then(() => undefined));
  await runCommand(["nft", "add table ip planted; add chain ip planted here; add rule ip planted here accept"]);
  planted.defer(() => runCommand(["nft", "delete table ip planted"]).then(() => undefined));
  await writeFile(path.join(workspace.ipamDir, "10.88.0.9"), "feedface");
  await writeFile(path.join(workspace.temporary, "forgotten"), "");

  const left = compareTraces(before, await findTraces(scope));
  const pids = left.flatMap((line) => /^processes: (\d+) started \d+: sleep 60$/u.exec(line)?.[1] ?? []);
  planted.defer(() => {
    for (const pid of pids) process.kill(Number(pid), "SIGKILL");
  });
  expect(pids).toHaveLength(1);
  const expected = [
    `mounts: ${mountPoint} (tmpfs planted, root /)`,
    `cgroups: ${parent}/left`,
    "links: planted0",
    "firewall: chain here: accept",
    `leases: ${workspace.ipamDir}/10.88.0.9`,
    `files: ${workspace.temporary}/forgotten`,
  ];
  expect(left).toEqual(expect.arrayContaining(expected));
});
