import { tmpdir } from "node:os";
import { describe, expect, it } from "vitest";
import { Code } from "../cri-api/index.ts";
import { processIdentity, spawn } from "../native/index.ts";
import { createFakeRuntime } from "../oci/testing.ts";
import { runtimeOf } from "./runtimes.ts";

const signal = new AbortController().signal;
const retired = runtimeOf({ runtimes: new Map() }, "gone");

describe("runtimeOf", () => {
  it("is the configured runtime where there is one", () => {
    const crun = createFakeRuntime("crun");
    expect(runtimeOf({ runtimes: new Map([["crun", crun]]) }, "crun")).toBe(crun);
  });

  it("still kills, and sees the end, when the handler is not configured any more", async () => {
    const child = await spawn({ argv: ["/bin/sleep", "1000"], env: {}, stdio: ["null", "null", "null"] });
    const init = await processIdentity(child.pid);
    if (!init) throw new Error("the process is not there");
    const exit = retired.waitForExit("id", init, undefined, signal);
    await retired.kill("id", init, 9);
    expect(await exit).toMatchObject({ exitCode: 255, oomKilled: false });
    await child.exited;
    expect(await retired.waitForExit("id", init, undefined, signal)).toMatchObject({ exitCode: 255 });
  });

  it("refuses, and says why, what only the runtime can do", async () => {
    const refusal = { code: Code.FailedPrecondition, message: 'runtime handler "gone" is not configured any more' };
    await expect(retired.start(signal, "id")).rejects.toMatchObject(refusal);
    await expect(retired.delete(signal, "id", tmpdir())).rejects.toMatchObject(refusal);
  });

  it("has nothing to delete after a reboot", async () => {
    await retired.delete(signal, "id", "/run/berth/containers/no-such-bundle");
  });

  it("stops waiting when its caller does", async () => {
    const self = await processIdentity(process.pid);
    if (!self) throw new Error("this process is not there");
    const caller = new AbortController();
    const waiting = retired.waitForExit("id", self, undefined, caller.signal);
    caller.abort(new Error("shutting down"));
    await expect(waiting).rejects.toThrow("shutting down");
  });
});
