import { existsSync } from "node:fs";
import { mkdir, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { processIdentity } from "./identity.ts";
import { killUntilGone } from "./kill.ts";
import { spawn } from "./process.ts";

const freezer = "/sys/fs/cgroup/freezer";

test.skipIf(!existsSync(freezer))(
  "who was to be killed counts until he is dead, also where nobody would know him again",
  async () => {
    const group = join(freezer, `berth-test-${process.pid}`);
    await mkdir(group);
    onTestFinished(async () => await expect.poll(() => rmdir(group)).toBeUndefined());
    const child = await spawn({ argv: ["/bin/sleep", "60"], env: {}, stdio: ["null", "null", "null"] });
    onTestFinished(async () => {
      await writeFile(join(group, "freezer.state"), "THAWED");
      child.kill(9);
      await child.exited;
    });
    await writeFile(join(group, "cgroup.procs"), String(child.pid));
    await writeFile(join(group, "freezer.state"), "FROZEN");
    const seen = await processIdentity(child.pid);
    const once = seen ? [seen] : [];
    expect(await killUntilGone(async () => once.splice(0), 100)).toBe(false);
  },
);
