import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readdir, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { spawn } from "../native/index.ts";
import { endStrayPlugins } from "./stray-plugins.ts";

const freezer = "/sys/fs/cgroup/freezer";

test.skipIf(!existsSync(freezer))("a plugin counts until the last of its threads has ended", async () => {
  const group = join(freezer, `berth-test-${process.pid}`);
  await mkdir(group);
  onTestFinished(async () => await expect.poll(() => rmdir(group)).toBeUndefined());
  const id = randomBytes(32).toString("hex");
  const env = { CNI_COMMAND: "ADD", CNI_CONTAINERID: id };
  const argv = ["/usr/bin/perl", "-Mthreads", "-e", "async { sleep 60 }->join"] as const;
  const plugin = await spawn({ argv, env, stdio: ["null", "null", "null"] });
  onTestFinished(async () => {
    await writeFile(join(group, "freezer.state"), "THAWED");
    plugin.kill(9);
    await plugin.exited;
  });
  const threads = (): Promise<string[]> => readdir(`/proc/${plugin.pid}/task`);
  await expect.poll(threads).toHaveLength(2);
  await writeFile(join(group, "tasks"), (await threads()).at(-1) ?? "");
  await writeFile(join(group, "freezer.state"), "FROZEN");
  await expect(endStrayPlugins([id], AbortSignal.timeout(300))).rejects.toThrow();
});
