import { describe, expect, test } from "vitest";
import { Code } from "../../cri-api/index.ts";
import type { cri } from "../../cri-api/index.ts";
import { areSameIdMaps, idMapsOf, requireMapped } from "./user-namespace.ts";

const range = { containerId: 0, hostId: 100_000, length: 65_536 };
const options = (overrides: Partial<cri.UserNamespace> = {}): cri.UserNamespace => ({
  mode: "POD",
  uids: [range],
  gids: [range],
  ...overrides,
});

describe("idMapsOf", () => {
  test("reads one range of uids and one of gids", () => {
    const gids = { ...range, hostId: 5, length: 7 };
    expect(idMapsOf(options({ gids: [gids] }))).toEqual({
      uids: { hostId: 100_000, length: 65_536 },
      gids: { hostId: 5, length: 7 },
    });
  });
  test("takes nothing, or NODE without mappings, for the host's", () => {
    expect(idMapsOf(null)).toBeUndefined();
    expect(idMapsOf(undefined)).toBeUndefined();
    expect(idMapsOf(options({ mode: "NODE", uids: [], gids: [] }))).toBeUndefined();
  });
  test.each([
    [{ mode: "CONTAINER" as const }, /CONTAINER is not a mode of a pod/],
    [{ mode: "TARGET" as const }, /TARGET is not a mode of a pod/],
    [{ mode: "NODE" as const, gids: [] }, /NODE takes no id mappings/],
    [{ uids: [] }, /uids: exactly one id mapping is needed, not 0/],
    [{ gids: [range, { ...range, containerId: 70_000 }] }, /gids: exactly one id mapping is needed, not 2/],
    [{ uids: [{ ...range, containerId: 1 }] }, /uids: container id 0 is not mapped/],
    [{ uids: [{ ...range, length: 0 }] }, /uids: id mapping 0:100000:0 is not a range/],
    [{ gids: [{ ...range, hostId: 2 ** 32 - 2, length: 2 }] }, /gids: id mapping 0:4294967294:2 is not a range/],
    [{ gids: [{ ...range, hostId: 0, length: 2 ** 32 - 1 }] }, null],
  ])("refuses %o", (overrides, message) => {
    const attempt = (): unknown => idMapsOf(options(overrides));
    if (message === null) return expect(attempt).not.toThrow();
    expect(attempt).toThrow(message);
    expect(attempt).toThrow(expect.objectContaining({ code: Code.InvalidArgument }));
  });
});

test("two are the same when both their ranges are", () => {
  const one = idMapsOf(options());
  expect(areSameIdMaps(one, idMapsOf(options()))).toBe(true);
  expect(areSameIdMaps(undefined, undefined)).toBe(true);
  expect(areSameIdMaps(one, undefined)).toBe(false);
  expect(areSameIdMaps(one, idMapsOf(options({ gids: [{ ...range, length: 1 }] })))).toBe(false);
  expect(areSameIdMaps(one, idMapsOf(options({ uids: [{ ...range, hostId: 1 }] })))).toBe(false);
});

test("the last id of a range is mapped, the next is not", () => {
  const maps = idMapsOf(options({ uids: [{ ...range, length: 10 }] }));
  const user = { uid: 9, gid: 65_535, additionalGids: [65_535] };
  expect(() => requireMapped(maps, user)).not.toThrow();
  expect(() => requireMapped(maps, { ...user, uid: 10 })).toThrow(/user 10 is not mapped/);
  expect(() => requireMapped(maps, { ...user, additionalGids: [65_536] })).toThrow(/group 65536 is not mapped/);
  expect(() => requireMapped(undefined, { ...user, uid: 2 ** 31 - 1 })).not.toThrow();
});
