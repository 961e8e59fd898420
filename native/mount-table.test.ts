import { expect, test } from "vitest";
import { parseMountTable, readMountTable } from "./mount-table.ts";

test("reads peer groups, options and escaped names", () => {
  const [entry] = parseMountTable(
    "36 35 98:0 /mnt1\\011x /mnt2\\040with\\134slash rw,noatime shared:12 master:1 - ext3 /dev/root rw,errors=continue\n",
  );
  expect(entry).toEqual({
    id: 36,
    parentId: 35,
    device: "98:0",
    root: "/mnt1\tx",
    mountPoint: "/mnt2 with\\slash",
    fsType: "ext3",
    source: "/dev/root",
    options: ["rw", "noatime"],
    superOptions: ["rw", "errors=continue"],
    shared: 12,
    master: 1,
  });
});

test("an entry without tags has none", () => {
  const [entry] = parseMountTable("22 27 0:21 / /proc rw,relatime - proc proc rw");
  expect(entry).toMatchObject({ mountPoint: "/proc", shared: undefined, master: undefined });
});

test.each(["", "\n", "1 2 3", "1 2 0:1 / /x rw - ext4", "- - - - - - - - -"])(
  "leaves out what it does not understand: %j",
  (text) => {
    expect(parseMountTable(text)).toEqual([]);
  },
);

test("finds /proc in this process's own table", async () => {
  const table = await readMountTable();
  expect(table.find(({ mountPoint }) => mountPoint === "/proc")?.fsType).toBe("proc");
});
