import { expect, test } from "vitest";
import { createNotify } from "./notify.ts";
import { createLogBook, makeScratch } from "./testing.ts";

test("without a systemd that waits, nothing is said", () => {
  const { log, lines } = createLogBook();
  createNotify({ notifySocket: undefined }, log)("READY=1");
  expect(lines).toEqual([]);
});

test("a systemd that does not listen is a warning, not an end", async () => {
  await using scratch = await makeScratch();
  const { log, lines } = createLogBook();
  createNotify({ notifySocket: `${scratch.path}/absent` }, log)("READY=1");
  expect(lines.map(({ level, fields }) => [level, fields])).toEqual([
    ["warn", { notification: "READY=1", err: expect.objectContaining({ code: "ENOENT" }) }],
  ]);
});
