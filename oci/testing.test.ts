import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { containerSpec } from "./runtime/testing.ts";
import { createFakeRuntime, describeRuntimeContract } from "./testing.ts";

describeRuntimeContract("the fake runtime", async () => {
  const directory = await mkdtemp(join(tmpdir(), "berth-fake-"));
  let count = 0;
  return {
    runtime: createFakeRuntime(),
    async prepare(args) {
      count += 1;
      const id = `fake-${count}`;
      const spec = containerSpec({ args, rootfs: "/nowhere", cgroupsPath: `/${id}` });
      return { id, bundle: directory, spec, logPath: "", tty: false, stdin: false, stdinOnce: false };
    },
    [Symbol.asyncDispose]: async () => await rm(directory, { recursive: true }),
  };
});
