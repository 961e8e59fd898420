import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { createStateStore, exitFile, removeHalfWritten, stateDirectory } from "./state.ts";
import type { RuntimeConfig } from "./types.ts";

it("leaves nothing of a container, also where a crash cut its state short, or its monitor's last file", async () => {
  const directory = await mkdtemp(join(tmpdir(), "berth-state-"));
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => rm(directory, { recursive: true }));
  const config = { stateDir: directory } as RuntimeConfig; // all that the store asks for
  await mkdir(stateDirectory(config), { recursive: true });
  await mkdir(join(directory, "exits"));
  await writeFile(join(stateDirectory(config), ".web.json.0123456789ab.tmp"), "{");
  await writeFile(exitFile(config, "web"), "0");
  await writeFile(`${exitFile(config, "web")}.0DS3Y3`, "");
  await writeFile(exitFile(config, "web2"), "0");
  await removeHalfWritten(config);
  await createStateStore(config).remove("web");
  expect((await readdir(directory, { recursive: true })).sort()).toEqual(["containers", "exits", "exits/web2"]);
});
