import { mkdir, mkdtemp, readdir, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { removeEmptyLeases } from "./host-local-leases.ts";

const bootedAtMs = Date.parse("2026-01-02T00:00:00Z");
const [before, after] = [bootedAtMs - 60_000, bootedAtMs + 60_000];
let dataDir: string;
beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), "berth-leases-"));
  await mkdir(join(dataDir, "berth"));
});
afterEach(() => rm(dataDir, { recursive: true }));

const networkWith = (ipam: object) => ({
  name: "berth",
  plugins: [
    { type: "bridge", capabilities: [], fields: { type: "bridge", ipam: { ...ipam } } },
    { type: "portmap", capabilities: [], fields: { type: "portmap" } },
  ],
});

async function lease(name: string, text: string, atMs: number): Promise<void> {
  const path = join(dataDir, "berth", name);
  await writeFile(path, text);
  await utimes(path, atMs / 1000, atMs / 1000);
}

test("leases that a power cut has emptied are given back, and no others", async () => {
  await lease("10.85.0.2", "", before);
  await lease("fd00::2", "", before);
  await lease("10.85.0.3", "pod\r\neth0", before);
  await lease("10.85.0.4", "", after);
  await lease("lock", "", before);
  await lease("last_reserved_ip.0", "", before);
  const removed = await removeEmptyLeases(networkWith({ type: "host-local", dataDir }), bootedAtMs);
  expect(removed.toSorted()).toEqual(["10.85.0.2", "fd00::2"]);
  const left = await readdir(join(dataDir, "berth"));
  expect(left.toSorted()).toEqual(["10.85.0.3", "10.85.0.4", "last_reserved_ip.0", "lock"]);
});

test("another plugin's files are its own", async () => {
  await lease("10.85.0.2", "", before);
  expect(await removeEmptyLeases(networkWith({ type: "whereabouts", dataDir }), bootedAtMs)).toEqual([]);
  expect(await readdir(join(dataDir, "berth"))).toEqual(["10.85.0.2"]);
});

test("a network that gave out no address yet has none to give back", async () => {
  await rm(join(dataDir, "berth"), { recursive: true });
  expect(await removeEmptyLeases(networkWith({ type: "host-local", dataDir }), bootedAtMs)).toEqual([]);
});
