import { createRandom } from "../../cri-api/testing.ts";
import { Code } from "../../cri-api/index.ts";
import { describe, expect, test } from "vitest";
import { missingAccounts } from "./account-files.ts";
import { securityContext } from "./testing.ts";
import { maxId, resolveUser } from "./user.ts";

const passwd = Buffer.from(
  [
    "root:x:0:0:root:/root:/bin/sh",
    "# a comment",
    "broken",
    "+nis::::::",
    ":x:5:5::/:",
    "app:x:1000:1001:App:/home/app:/bin/sh",
    "app:x:0:0:second:/:/bin/sh",
    "1234:x:0:0:a number as a name:/:/bin/sh",
    "99999999999:x:0:0::/:/bin/sh",
    "huge:x:4294967296:0::/:/bin/sh",
    "edge:x:2147483648:0::/:/bin/sh",
    "negative:x:-1:0::/:/bin/sh",
    "hex:x:0x0:0::/:/bin/sh",
    "last:x:2000:2000::/last:/bin/sh",
  ].join("\n"),
);
const group = Buffer.from(
  ["root:x:0:", "app:x:1001:", "wheel:x:10:root,app", "audio:x:29:apple,app,", "777:x:0:app", "bad:x:nine:app"].join(
    "\n",
  ),
);
const files = { passwd, group };
const id = (value: bigint): { value: bigint } => ({ value });

describe("resolveUser", () => {
  test.each([
    ["", 0, 0],
    ["root", 0, 0],
    ["app", 1000, 1001],
    ["app:wheel", 1000, 10],
    ["app:5", 1000, 5],
    ["1000", 1000, 1001],
    ["1000:7", 1000, 7],
    ["4321", 4321, 0],
    ["4321:audio", 4321, 29],
    [":wheel", 0, 10],
    ["app:", 1000, 1001],
    ["last", 2000, 2000],
  ])("takes the image's user %j as %i:%i", (imageUser, uid, gid) => {
    expect(resolveUser(files, null, imageUser)).toMatchObject({ uid, gid });
  });

  test("takes a number as a number even where the image has it as a name (CVE-2026-46680)", () => {
    expect(resolveUser(files, null, "1234")).toEqual({ uid: 1234, gid: 0, additionalGids: [0] });
    expect(resolveUser(files, null, "5:777")).toMatchObject({ uid: 5, gid: 777 });
  });

  test.each([
    "99999999999",
    "2147483648",
    "4294967296",
    "9".repeat(400),
    "huge",
    "edge",
    "negative",
    "hex",
    "-1",
    "+0",
    "0x0",
    "absent",
    "app:absent",
    "app:4294967296",
    "app:wheel:x",
    " app",
    "ap",
  ])("refuses the image's user %j", (imageUser) => {
    expect(() => resolveUser(files, null, imageUser)).toThrow(expect.objectContaining({ code: Code.InvalidArgument }));
  });

  test("lets the CRI's user beat the image's, with the group the image knows for it", () => {
    expect(resolveUser(files, securityContext({ runAsUser: id(1000n) }), "root")).toEqual({
      uid: 1000,
      gid: 1001,
      additionalGids: [1001, 10, 29, 0],
      home: "/home/app",
      username: "app",
    });
    expect(resolveUser(files, securityContext({ runAsUsername: "app" }), "root")).toMatchObject({ uid: 1000 });
  });

  test("always has the primary gid among the groups (CVE-2022-2995)", () => {
    const context = securityContext({ runAsUser: id(5n), runAsGroup: id(9n), supplementalGroups: [9n, 11n] });
    expect(resolveUser(files, context, "").additionalGids).toEqual([9, 11]);
  });

  test("adds the image's memberships under Merge and leaves them out under Strict", () => {
    const asked = { runAsUsername: "app", runAsGroup: id(50n), supplementalGroups: [60n] };
    const merge = resolveUser(files, securityContext({ ...asked, supplementalGroupsPolicy: "Merge" }), "");
    const strict = resolveUser(files, securityContext({ ...asked, supplementalGroupsPolicy: "Strict" }), "");
    expect(merge.additionalGids).toEqual([50, 10, 29, 0, 60]);
    expect(strict.additionalGids).toEqual([50, 60]);
  });

  test.each([
    ["a group without a user", { runAsGroup: id(5n) }, /run_as_group needs/],
    ["two users", { runAsUser: id(5n), runAsUsername: "app" }, /exclude each other/],
    ["an unknown name", { runAsUsername: "absent" }, /not in the image's \/etc\/passwd/],
    ["a number as a name", { runAsUsername: "1000" }, /is a number/],
    ["a negative uid", { runAsUser: id(-1n) }, /not between/],
    ["a uid that would overflow to 0 (CVE-2024-40635)", { runAsUser: id(2n ** 32n) }, /not between/],
    ["the largest uid and one", { runAsUser: id(2n ** 31n) }, /not between/],
    ["a gid out of range", { runAsUser: id(1n), runAsGroup: id(2n ** 31n) }, /not between/],
    ["a negative supplementary group", { supplementalGroups: [-5n] }, /not between/],
  ])("refuses %s", (_, overrides, message) => {
    const attempt = (): unknown => resolveUser(files, securityContext(overrides), "");
    expect(attempt).toThrow(expect.objectContaining({ code: Code.InvalidArgument }));
    expect(attempt).toThrow(message);
  });

  test("takes the largest id there is", () => {
    expect(resolveUser(files, securityContext({ runAsUser: id(BigInt(maxId)) }), "").uid).toBe(maxId);
  });

  test("runs without account files as long as nothing is asked of them", () => {
    const none = { passwd: undefined, group: undefined };
    expect(resolveUser(none, null, "")).toEqual({ uid: 0, gid: 0, additionalGids: [0] });
    expect(() => resolveUser(none, null, "root")).toThrow(/not in the image/);
  });

  test("refuses files that are too large and passes over lines that are", () => {
    const large = Buffer.alloc(5 * 1024 * 1024, "a");
    expect(() => resolveUser({ passwd: large, group }, null, "app")).toThrow(/larger than/);
    const longLine = Buffer.concat([Buffer.alloc(2 * 1024 * 1024, "a"), Buffer.from("\napp:x:7:8::/:/")]);
    expect(resolveUser({ passwd: longLine, group }, null, "app")).toMatchObject({ uid: 7, gid: 8 });
  });

  test("gives ids in range or an error, whatever is in the files", () => {
    const random = createRandom(7);
    const alphabet = "abc:x0123456789,\n\r\0-+ ";
    const text = (length: number): string =>
      Array.from({ length }, () => alphabet[Math.floor(random() * alphabet.length)]).join("");
    for (let round = 0; round < 2000; round++) {
      const hostile = { passwd: Buffer.from(`a:x:${text(60)}`), group: Buffer.from(text(60)) };
      try {
        const { uid, gid, additionalGids } = resolveUser(hostile, null, text(3));
        for (const each of [uid, gid, ...additionalGids]) expect(each).toSatisfy((n: number) => n >= 0 && n <= maxId);
      } catch (thrown) {
        expect(thrown).toMatchObject({ code: Code.InvalidArgument });
      }
    }
  });
});

describe("missingAccounts", () => {
  test("adds a line for a uid and gid that the image does not know", () => {
    const added = missingAccounts(
      { passwd: Buffer.from("root:x:0:0::/:/bin/sh"), group: Buffer.from("root:x:0:\n") },
      { uid: 7, gid: 8 },
      "/",
    );
    expect(added.passwd?.toString()).toBe("root:x:0:0::/:/bin/sh\n7:x:7:8:container user:/:/sbin/nologin\n");
    expect(added.group?.toString()).toBe("root:x:0:\n8:x:8:\n");
  });

  test("changes nothing where the ids are known or the files are not there", () => {
    expect(missingAccounts(files, { uid: 1000, gid: 10 }, "/")).toEqual({});
    expect(missingAccounts({ passwd: undefined, group: undefined }, { uid: 7, gid: 8 }, "/")).toEqual({});
  });

  test.each(["/x\nroot::0:0::/:/bin/sh", "/x\r", "/x:0", "/x\u2028y", "/x\u0085"])("refuses the home %j", (home) => {
    expect(() => missingAccounts(files, { uid: 7, gid: 8 }, home)).toThrow(
      expect.objectContaining({ code: Code.InvalidArgument }),
    );
  });
});
