import assert from "node:assert/strict";
import type { Report } from "../../harness/report.ts";
import { runCommand } from "../../harness/run-command.ts";
import { waitUntil } from "../../harness/wait-until.ts";
import { type Node, patienceMs, remove, shell, startContainer, statusOf } from "./node.ts";

const unit = "berth.service";

async function show(property: string): Promise<string> {
  return runCommand(["systemctl", "show", "-p", property, "--value", unit]);
}

/** The unit of `deploy/` under systemd: what it waits for, and what outlives it. */
export async function checkService(node: Node, report: Report): Promise<void> {
  const containerId = await startContainer(node, "survivor");
  const before = await statusOf(node, containerId);
  const isAsBefore = async (): Promise<void> => {
    assert.deepEqual(await statusOf(node, containerId), before);
    assert.equal((await shell(node, containerId, "echo still here")).text, "still here");
  };
  await report.check("systemd finds nothing to say against the unit", async () => {
    const said = await runCommand(["sh", "-c", `systemd-analyze verify --man=no /etc/systemd/system/${unit} 2>&1`]);
    assert.equal(said, "");
    assert.match(await show("Before"), /\bkubelet\.service\b/u);
  });
  await report.check("a restart of the service leaves the container as it was", async () => {
    await runCommand(["systemctl", "restart", unit], { timeoutMs: patienceMs });
    await isAsBefore(); // at once: the start job waits until the socket answers
  });
  await report.check("a stop of the service leaves the container running, and a start takes it up again", async () => {
    await runCommand(["systemctl", "stop", unit], { timeoutMs: patienceMs });
    assert.equal(await show("Result"), "success");
    const scope = await runCommand(["systemctl", "is-active", `berth-${containerId}.scope`]);
    assert.equal(scope, "active");
    await runCommand(["systemctl", "start", unit], { timeoutMs: patienceMs });
    await isAsBefore();
  });
  for (const [what, signal] of [
    ["dies", "SIGKILL"],
    ["hangs", "SIGSTOP"],
  ] as const) {
    await report.check(
      `a daemon that ${what} is started anew by systemd, and the container has not seen it`,
      async () => {
        const pid = await show("MainPID");
        await runCommand(["systemctl", "kill", `--signal=${signal}`, "--kill-whom=main", unit]);
        await waitUntil(
          "the service's return",
          async () => ((await show("ActiveState")) === "active" && (await show("MainPID")) !== pid ? true : undefined),
          patienceMs,
        );
        await isAsBefore();
      },
    );
  }
  await remove(node, containerId);
}
