import { readdir, readFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { Code, type cri } from "../cri-api/index.ts";
import { useDaemon } from "./harness/fixture.ts";
import { waitUntil } from "./harness/wait-until.ts";

const berth = useDaemon();

/** Command lines of all processes of the machine that hold a text. */
async function processesWith(text: string): Promise<readonly string[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/u.test(name));
  const lines = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")));
  return lines.filter((line) => line.includes(text));
}

const stubborn = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"];

describe.each(["crun", "runc"])("with %s", (runtimeHandler) => {
  describe.each(["CONTAINER", "POD", "NODE"] as const)("and a PID namespace of the %s", (pid) => {
    const linux = { securityContext: { namespaceOptions: { pid } } };
    async function start(command: readonly string[]): Promise<string> {
      const pod = await berth.runPod({ runtimeHandler, config: { linux } });
      const containerId = await berth.startContainer(pod, { command, linux });
      await berth.waitForLog(containerId, "ready");
      return containerId;
    }

    test("commands that run when their container ends are killed, are told so, and leave nothing", async () => {
      const containerId = await start(["sh", "-c", "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done"]);
      const mark = `7${Math.floor(Math.random() * 1e8)}`;
      const commands = [
        ["sleep", mark],
        ["sh", "-c", `trap '' TERM; sleep ${mark} & sleep ${mark}`],
        ["sh", "-c", `setsid sh -c 'trap "" TERM HUP; while :; do sleep ${mark}; done' & wait`],
      ];
      const running = commands.map((cmd) => berth.call("ExecSync", { containerId, cmd }));
      await waitUntil("the commands to run", async () => ((await processesWith(mark)).length >= 6 ? true : undefined));
      await berth.call("StopContainer", { containerId, timeout: 10n });
      const answers = await Promise.all(running);
      expect(answers.map(({ exitCode }) => exitCode)).toEqual([137, 137, 137]);
      expect(await processesWith(mark)).toEqual([]);
      expect(await berth.containerStatus(containerId)).toMatchObject({ exitCode: 0, reason: "Completed" });
    });

    test("a command may be run in the grace period, and none once killing has begun", async () => {
      const containerId = await start(stubborn);
      const stopped = berth.call("StopContainer", { containerId, timeout: 3n });
      expect(await berth.shell(containerId, "echo still")).toBe("still");
      await stopped;
      await berth.expectFailure("ExecSync", { containerId, cmd: ["true"] }, Code.FailedPrecondition, /not running/u);
      expect(await berth.containerStatus(containerId)).toMatchObject({ exitCode: 137, reason: "Error" });
    });
  });

  test("a command that ends by itself while the container stops tells its own exit code", async () => {
    const pod = await berth.runPod({ runtimeHandler });
    const containerId = await berth.startContainer(pod, { command: stubborn });
    await berth.waitForLog(containerId, "ready");
    const cmd = ["sh", "-c", "sleep 0.5; exit 3"];
    const running: Promise<cri.ExecSyncResponse> = berth.call("ExecSync", { containerId, cmd });
    await berth.call("StopContainer", { containerId, timeout: 3n });
    expect((await running).exitCode).toBe(3);
  });
});
