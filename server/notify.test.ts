import { chmod, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { notifyReady } from "./notify.ts";
import { createLogBook, makeScratch } from "./testing.ts";

async function installNotify(directory: string, script: string): Promise<string> {
  const program = join(directory, "systemd-notify");
  await writeFile(program, `#!/bin/sh\n${script}\n`);
  await chmod(program, 0o755);
  return `${directory}:/usr/bin:/bin`;
}

test("systemd is told when it waits for us, and only then", async () => {
  await using scratch = await makeScratch();
  const path = await installNotify(scratch.path, `echo "$@" "$NOTIFY_SOCKET" >> ${scratch.path}/said`);
  const { log, lines } = createLogBook();
  await notifyReady({ path, notifySocket: undefined }, log);
  await notifyReady({ path, notifySocket: "/run/systemd/notify" }, log);
  expect(await readFile(join(scratch.path, "said"), "utf8")).toBe("--ready /run/systemd/notify\n");
  expect(lines).toEqual([]);
});

test("a failure to tell is a warning, not an end", async () => {
  await using scratch = await makeScratch();
  const { log, lines } = createLogBook();
  await notifyReady({ path: scratch.path, notifySocket: "/x" }, log);
  const path = await installNotify(scratch.path, "echo refused >&2; exit 3");
  await notifyReady({ path, notifySocket: "/x" }, log);
  expect(lines.map((line) => line.level)).toEqual(["warn", "warn"]);
  expect(lines[1]?.fields).toEqual({ status: { kind: "exited", code: 3 }, stderr: "refused" });
});
