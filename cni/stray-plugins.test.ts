import { randomBytes } from "node:crypto";
import { afterEach, expect, test } from "vitest";
import { type Child, spawn } from "../native/index.ts";
import { endStrayPlugins } from "./stray-plugins.ts";

const children: Child[] = [];
afterEach(async () => {
  for (const child of children.splice(0)) {
    child.kill(9);
    await child.exited;
  }
});

async function start(env: Readonly<Record<string, string>>, script = "exec sleep 1000"): Promise<Child> {
  const argv = ["/bin/sh", "-c", script] as const;
  const child = await spawn({ argv, env: { PATH: "/bin", ...env }, stdio: ["null", "null", "null"] });
  children.push(child);
  return child;
}

const soon = (): AbortSignal => AbortSignal.timeout(10_000);
const killed = { kind: "signaled", signal: 9 };

test("plugins at work on a container are killed with what they have started, those on others are not", async () => {
  const [ours, other] = [randomBytes(32).toString("hex"), randomBytes(32).toString("hex")];
  const plugin = await start({ CNI_COMMAND: "ADD", CNI_CONTAINERID: ours }, "trap '' TERM; sleep 1000; exit 3");
  const ipam = await start({ CNI_COMMAND: "DEL", CNI_CONTAINERID: ours });
  await start({ CNI_COMMAND: "ADD", CNI_CONTAINERID: other });
  await start({ CNI_CONTAINERID: ours }); // of somebody who only says so
  expect(await endStrayPlugins([ours], soon())).toBeGreaterThanOrEqual(2);
  expect(await plugin.exited).toEqual(killed);
  expect(await ipam.exited).toEqual(killed);
  expect(await endStrayPlugins([ours], soon())).toBe(0);
  expect(await endStrayPlugins([other], soon())).toBe(1);
});
