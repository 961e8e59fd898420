import { expect, onTestFinished, test } from "vitest";
import { Code } from "../../cri-api/index.ts";
import { processIdentity, spawn } from "../../native/index.ts";
import { notStarted } from "./exec.ts";
import type { ExecCommand, RuntimeConfig } from "./types.ts";

const config: RuntimeConfig = {
  handler: "crun",
  path: "/bin/false",
  root: "/run/none/root",
  monitorPath: "/bin/false",
  stateDir: "/run/none/state",
  cgroupDriver: "cgroupfs",
};

/** The error of an exec that the runtime gives these words for, in a container whose init lives so long, or has ended. */
async function failureBeside(seconds: string, words: string, hasEnded = false): Promise<unknown> {
  const child = await spawn({ argv: ["/bin/sleep", seconds], env: {}, stdio: ["null", "null", "null"] });
  onTestFinished(async () => {
    child.kill(9);
    await child.exited;
  });
  const init = await processIdentity(child.pid);
  if (!init) throw new Error("the stand-in for init ended at once");
  if (hasEnded) await child.exited;
  const process = {
    terminal: false,
    user: { uid: 0, gid: 0, umask: 0o022, additionalGids: [] },
    args: ["true"],
    env: [],
    cwd: "/",
    capabilities: { bounding: [], effective: [], permitted: [], inheritable: [], ambient: [] },
    noNewPrivileges: true,
    oomScoreAdj: 0,
  };
  const exec: ExecCommand = { id: "c1", bundle: "/run/none/c1", process };
  return await notStarted({ config }, { init }, exec, Buffer.from(words));
}

test("a command that the container's end took along was executed in a container that is not running", async () => {
  expect(await failureBeside("0.1", "fail startup")).toMatchObject({
    code: Code.FailedPrecondition,
    message: 'container "c1" is not running',
  });
});

test("a runtime that fails in a container that lives is told as it is", async () => {
  expect(await failureBeside("60", "fail startup")).toMatchObject({
    code: Code.Internal,
    message: 'cannot execute a command in container "c1": fail startup',
  });
});

test("what the caller did wrong counts, also where the container ends", async () => {
  const words = "executable file `true` not found in $PATH";
  expect(await failureBeside("0.1", words)).toMatchObject({ code: Code.InvalidArgument });
});

test("a container that has ended may have lost its files before", async () => {
  const words = "executable file `true` not found in $PATH";
  expect(await failureBeside("0.05", words, true)).toMatchObject({ code: Code.FailedPrecondition });
});
