import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";
import type { Report } from "../../harness/report.ts";
import { waitUntil } from "../../harness/wait-until.ts";
import { mebibyte, type Node, patienceMs, remove, shell, startContainer, statusOf } from "./node.ts";

async function endOf(node: Node, containerId: string): Promise<Awaited<ReturnType<typeof statusOf>>> {
  return waitUntil(
    "the container's end",
    async () => {
      const status = await statusOf(node, containerId);
      return status.state === "CONTAINER_EXITED" ? status : undefined;
    },
    patienceMs,
  );
}

/** A container's whole life, and the ways in which memory ends one. */
export async function checkLifecycle(node: Node, report: Report): Promise<void> {
  await report.check("a container runs, logs, answers an exec and ends as it was asked to", async () => {
    const script = "echo said; trap 'exit 7' TERM; while :; do sleep 1; done";
    const containerId = await startContainer(node, "life", { script });
    assert.deepEqual(await shell(node, containerId, "cat /etc/hostname; exit 3"), { exitCode: 3, text: "checks" });
    const log = path.join(node.workspace.logs, "checks", "life.log");
    const isLogged = async (): Promise<true | undefined> =>
      / stdout F said$/mu.test(await readFile(log, "utf8")) ? true : undefined;
    await waitUntil("the log", isLogged, patienceMs);
    await node.client.call("StopContainer", { containerId, timeout: 60n });
    const { state, exitCode, reason, finishedAt, startedAt } = await statusOf(node, containerId);
    assert.deepEqual([state, exitCode, reason], ["CONTAINER_EXITED", 7, "Error"]);
    assert.ok(finishedAt > startedAt);
    await node.client.call("RemoveContainer", { containerId });
    const { containers } = await node.client.call("ListContainers", { filter: { id: containerId } });
    assert.deepEqual(containers, []);
  });
  await report.check("more memory than the limit is an OOM kill", async () => {
    const resources = { memoryLimitInBytes: BigInt(24 * mebibyte), memorySwapLimitInBytes: BigInt(24 * mebibyte) };
    const containerId = await startContainer(node, "greedy", { script: "exec tail /dev/zero", resources });
    const { exitCode, reason } = await endOf(node, containerId);
    assert.deepEqual([exitCode, reason], [137, "OOMKilled"]);
    await remove(node, containerId);
  });
}
