import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Code } from "../../cri-api/index.ts";
import { createCdiRegistry } from "./cdi-registry.ts";
import type { CdiRegistry } from "./cdi-registry.ts";

const log = { warn: () => undefined };
let directory: string;
let registry: CdiRegistry;
const etc = (name: string): string => join(directory, "etc", name);
const run = (name: string): string => join(directory, "run", name);

/** A file of one kind whose devices each set NAME=value. */
function fileOf(kind: string, devices: Readonly<Record<string, string>>, common = "COMMON=1"): string {
  return JSON.stringify({
    cdiVersion: "0.6.0",
    kind,
    containerEdits: { env: [common] },
    devices: Object.entries(devices).map(([name, value]) => ({ name, containerEdits: { env: [`${name}=${value}`] } })),
  });
}
const envOf = async (...names: string[]): Promise<readonly string[]> => (await registry.resolve(names)).env;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "berth-cdi-"));
  await Promise.all([mkdir(etc("")), mkdir(run(""))]);
  registry = createCdiRegistry({
    specDirs: [etc(""), run(""), join(directory, "absent")].map((path) => path.replace(/\/$/, "")),
    log,
  });
});
afterEach(() => rm(directory, { recursive: true }));

describe("resolve", () => {
  test("gives what all devices of a file share once, then each device's own, in the order asked", async () => {
    await writeFile(etc("a.json"), fileOf("v.com/gpu", { one: "1", two: "2" }));
    await writeFile(etc("b.yaml"), fileOf("v.com/nic", { eth: "x" }, "NIC=1"));
    expect(await envOf("v.com/gpu=two", "v.com/nic=eth", "v.com/gpu=one")).toEqual([
      "COMMON=1",
      "two=2",
      "NIC=1",
      "eth=x",
      "one=1",
    ]);
  });

  test("sees at once what was written, changed or removed", async () => {
    await expect(envOf("v.com/gpu=one")).rejects.toThrow(/unresolvable/);
    await writeFile(etc("a.json"), fileOf("v.com/gpu", { one: "1" }));
    expect(await envOf("v.com/gpu=one")).toContain("one=1");
    await writeFile(etc("a.json"), fileOf("v.com/gpu", { one: "2" }));
    expect(await envOf("v.com/gpu=one")).toContain("one=2");
    await rm(etc("a.json"));
    await expect(envOf("v.com/gpu=one")).rejects.toThrow(/unresolvable/);
  });

  test("a later directory's device hides an earlier one's, two of one directory are a conflict", async () => {
    await writeFile(etc("a.json"), fileOf("v.com/gpu", { one: "etc" }));
    await writeFile(run("a.json"), fileOf("v.com/gpu", { one: "run" }));
    expect(await envOf("v.com/gpu=one")).toContain("one=run");
    await writeFile(run("b.json"), fileOf("v.com/gpu", { one: "rival", two: "2" }));
    await expect(envOf("v.com/gpu=one")).rejects.toThrow(/"v.com\/gpu=one" is in ".*run\/a.json" and ".*run\/b.json"/);
    expect(await envOf("v.com/gpu=two")).toContain("two=2");
  });

  test("an unknown device is told in the words that users know, with the files that cannot be used", async () => {
    await writeFile(etc("good.json"), fileOf("v.com/gpu", { one: "1" }));
    await writeFile(etc("bad.json"), "{");
    await writeFile(etc("large.yaml"), Buffer.alloc(1024 * 1024 + 1, 32));
    await mkdir(etc("folder.json"));
    await writeFile(etc("other.txt"), "not ours");
    const thrown: unknown = await registry
      .resolve(["v.com/gpu=one", "v.com/gpu=none"])
      .catch((error: unknown) => error);
    expect(thrown).toMatchObject({ code: Code.FailedPrecondition });
    const { message } = thrown as Error;
    expect(message).toMatch(/^CDI device injection failed: unresolvable CDI devices v\.com\/gpu=none;/);
    for (const name of ["bad.json", "large.yaml", "folder.json"]) expect(message).toContain(name);
    expect(message).not.toContain("other.txt");
    expect(await envOf("v.com/gpu=one")).toContain("one=1");
  });
});
