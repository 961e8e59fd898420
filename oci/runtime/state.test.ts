import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeEach, expect, it, onTestFinished } from "vitest";
import { NewerSchemaError } from "../../native/index.ts";
import { exitFile, openStateStore, stateDirectory } from "./state.ts";
import type { RuntimeConfig } from "./types.ts";

let directory: string;
let config: RuntimeConfig;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "berth-state-"));
  onTestFinished(() => rm(directory, { recursive: true }));
  config = { stateDir: directory } as RuntimeConfig; // all that the store asks for
  await mkdir(stateDirectory(config), { recursive: true });
});
const fixture = join(import.meta.dirname, "testdata/state-v1.json");

it("reads state of schema 1", async () => {
  await copyFile(fixture, join(stateDirectory(config), "web.json"));
  expect(await (await openStateStore(config)).load("web")).toEqual({
    bundle: "/run/berth/containers/web",
    opensGate: true,
    init: { pid: 4712, startTime: "123457" },
    monitor: { pid: 4711, startTime: "123456" },
    cgroups: { unified: undefined, controllers: { pids: "/sys/fs/cgroup/pids/kubepods/berth-web" } },
  });
});

it("hands what it has kept to the next daemon", async () => {
  const state = {
    bundle: "/b",
    opensGate: false,
    init: { pid: 7, startTime: "8" },
    monitor: undefined,
    cgroups: { unified: "/sys/fs/cgroup/x", controllers: {} },
  };
  await (await openStateStore(config)).save("web", state);
  expect(await (await openStateStore(config)).load("web")).toEqual(state);
});

it("refuses state of a newer schema, and does not take its container for none", async () => {
  const newer = (await readFile(fixture, "utf8")).replace(/"schemaVersion": ?1/u, '"schemaVersion":2');
  await writeFile(join(stateDirectory(config), "web.json"), newer);
  await expect(openStateStore(config)).rejects.toThrow(NewerSchemaError);
});

it("opens beside state that was cut short, which tells of nothing", async () => {
  await copyFile(fixture, join(stateDirectory(config), "whole.json"));
  await writeFile(join(stateDirectory(config), "half.json"), (await readFile(fixture)).subarray(0, 40));
  const states = await openStateStore(config);
  expect(await states.load("half")).toBeUndefined();
  expect(await states.load("whole")).toBeDefined();
});

it("leaves nothing of a container, also where a crash cut its state short, or its monitor's last file", async () => {
  await mkdir(join(directory, "exits"));
  for (const aside of [".web.json.0123456789ab.tmp", "web.json.tmp"]) // the other is an older Berth's
    await writeFile(join(stateDirectory(config), aside), "{");
  await writeFile(exitFile(config, "web"), "0");
  await writeFile(`${exitFile(config, "web")}.0DS3Y3`, "");
  await writeFile(exitFile(config, "web2"), "0");
  await (await openStateStore(config)).remove("web");
  expect((await readdir(directory, { recursive: true })).sort()).toEqual(["containers", "exits", "exits/web2"]);
});
