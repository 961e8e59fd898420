import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Code, loadJsonCodecs } from "../cri-api/index.ts";
import { openRecordStore } from "./record-store.ts";
import type { RecordStore } from "./record-store.ts";
import { sandboxFormat } from "./records.ts";
import { sandboxIps } from "./sandbox.ts";
import type { Sandbox } from "./sandbox.ts";
import { silentLog, testSandbox } from "./testing.ts";

const format = sandboxFormat(loadJsonCodecs());
let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "berth-records-"));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const open = (): Promise<RecordStore<Sandbox>> => openRecordStore(directory, format, silentLog);

/** A ready pod whose id begins with `prefix`. */
function pod(prefix: string, createdAtNs = 1n): Sandbox & { readonly state: "ready" } {
  return { ...testSandbox(prefix), id: prefix.padEnd(64, "0"), createdAtNs, state: "ready", ips: [] };
}

describe("openRecordStore", () => {
  it("finds what the daemon before has written, in the order of its making", async () => {
    const before = await open();
    for (const [prefix, at] of [
      ["c", 3n],
      ["a", 1n],
      ["b", 2n],
    ] as const)
      await before.save(pod(prefix, at));
    await before.remove(pod("b").id);
    const after = await open();
    expect(after.list().map(({ id }) => id[0])).toEqual(["a", "c"]);
    expect(after.get(pod("a").id)).toEqual(pod("a", 1n));
    expect(after.byName(pod("c").name)?.id).toBe(pod("c").id);
  });

  it("puts broken records aside and serves the rest", async () => {
    const before = await open();
    await before.save(pod("a"));
    await writeFile(join(directory, `${"b".repeat(64)}.json`), '{"schemaVersion":1,"id":"bbb');
    await writeFile(join(directory, `${"c".repeat(64)}.json`), format.serialize(pod("a")));
    const after = await open();
    expect(after.all().map(({ id }) => id)).toEqual([pod("a").id]);
    const files = await readdir(directory);
    expect(files.filter((file) => file.endsWith(".corrupt"))).toHaveLength(2);
    expect((await open()).all()).toHaveLength(1);
  });

  it("lets an object come to its end where the disk takes no write, and nothing else", async () => {
    const store = await open();
    const { ips, ...base } = pod("a");
    await store.save(pod("a"));
    await rm(directory, { recursive: true });
    await expect(store.save(pod("b"))).rejects.toThrow("ENOENT");
    await expect(store.update(base.id, () => ({ ...base, ips: ["10.0.0.1"] }))).rejects.toThrow("ENOENT");
    expect(store.get(base.id)).toMatchObject({ state: "ready", ips: [] });
    await store.update(base.id, () => ({ ...base, state: "not-ready", ips }));
    expect(store.get(base.id)?.state).toBe("not-ready");
  });

  it("does not start over the state of a newer daemon", async () => {
    await writeFile(
      join(directory, `${pod("a").id}.json`),
      format.serialize(pod("a")).replace('"schemaVersion":1', '"schemaVersion":7'),
    );
    await expect(open()).rejects.toThrow("state of schema 7 was written by a newer Berth");
    expect(await readdir(directory)).toEqual([`${pod("a").id}.json`]);
  });

  it("clears writes that were cut short, and nothing that is not its own", async () => {
    const id = pod("a").id;
    for (const file of [`.${id}.json.0123456789ab.tmp`, ".keep.tmp", "README"]) {
      await writeFile(join(directory, file), "{");
    }
    await open();
    expect((await readdir(directory)).sort()).toEqual([".keep.tmp", "README"]);
  });
});

describe("RecordStore", () => {
  it("finds by full id and by a prefix that only one has", async () => {
    const store = await open();
    await store.save(pod("ab1"));
    await store.save(pod("ab2"));
    expect(store.find("ab1")?.id).toBe(pod("ab1").id);
    expect(store.find(pod("ab2").id)?.id).toBe(pod("ab2").id);
    expect(store.find("ac")).toBeUndefined();
    expect(store.find("")).toBeUndefined();
    expect(() => store.find("ab")).toThrow(expect.objectContaining({ code: Code.InvalidArgument }));
    expect(() => store.require("ac")).toThrow(expect.objectContaining({ code: Code.NotFound }));
    expect(() => store.require("")).toThrow(expect.objectContaining({ code: Code.InvalidArgument }));
  });

  it("shows nobody a record in creation, nor counts it as a match", async () => {
    const store = await open();
    const hidden = { ...testSandbox("x"), id: "ab2".padEnd(64, "0") };
    await store.save(hidden);
    await store.save(pod("ab1"));
    expect(store.find(hidden.id)).toBeUndefined();
    expect(store.find("ab")?.id).toBe(pod("ab1").id);
    expect(store.list()).toHaveLength(1);
    expect(store.all()).toHaveLength(2);
    expect(store.byName(hidden.name)).toBe(hidden);
  });

  it("makes changes of one record one after the other, each seeing the one before", async () => {
    const store = await open();
    await store.save(pod("a"));
    const add = (ip: string): Promise<unknown> =>
      store.update(pod("a").id, (current) => ({ ...pod("a"), ips: [...sandboxIps(current), ip] }));
    await Promise.all(["1", "2", "3", "4", "5"].map(add));
    expect(store.get(pod("a").id)).toMatchObject({ ips: ["1", "2", "3", "4", "5"] });
    expect((await open()).get(pod("a").id)).toMatchObject({ ips: ["1", "2", "3", "4", "5"] });
  });

  it("shows no change that is not on disk", async () => {
    const store = await open();
    await store.save(pod("a"));
    await rm(directory, { recursive: true });
    await expect(store.update(pod("a").id, () => ({ ...pod("a"), ips: ["new"] }))).rejects.toThrow("ENOENT");
    await expect(store.save(pod("b"))).rejects.toThrow("ENOENT");
    expect(store.all()).toEqual([pod("a")]);
  });

  it("neither brings back a removed record nor writes an unchanged one", async () => {
    const store = await open();
    await store.save(pod("a"));
    await rm(join(directory, `${pod("a").id}.json`));
    await store.update(pod("a").id, (current) => current);
    expect(await readdir(directory)).toEqual([]);
    await store.remove(pod("a").id);
    await store.remove(pod("a").id);
    expect(await store.update(pod("a").id, () => pod("a"))).toBeUndefined();
    expect(store.byName(pod("a").name)).toBeUndefined();
  });

  it("keeps a name for who has it now when an older owner goes", async () => {
    const store = await open();
    const older = { ...testSandbox("web"), id: "1".padEnd(64, "0") };
    const newer = { ...testSandbox("web"), id: "2".padEnd(64, "0") };
    await store.save(older);
    await store.save(newer);
    await store.remove(older.id);
    expect(store.byName(newer.name)?.id).toBe(newer.id);
  });

  it("refuses a record that the next daemon could not read", async () => {
    const store = await open();
    const config = { ...pod("a").config, annotations: { big: "x".repeat(16 * 1024 * 1024) } };
    await expect(store.save({ ...pod("a"), config })).rejects.toMatchObject({ code: Code.InvalidArgument });
    expect(await readdir(directory)).toEqual([]);
  });
});
