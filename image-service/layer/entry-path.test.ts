import { expect, test } from "vitest";

import { parseEntryPath } from "./entry-path.ts";

test.each([
  ["a", "", "a"],
  ["./a/b/", "a", "b"],
  ["/etc//passwd", "etc", "passwd"],
  ["./", "", ""],
  ["/", "", ""],
  ["a/./b", "a", "b"],
  ["...", "", "..."],
])("%j lies in %j as %j", (name, folder, base) => {
  expect(parseEntryPath(name, 10)).toEqual({ folder, base });
});

test.each([["../a"], ["a/../b"], [".."], ["a/.."], ["a\0b"], ["x/".repeat(11)], ["n".repeat(256)], ["ü".repeat(128)]])(
  "%j is refused",
  (name) => {
    expect(() => parseEntryPath(name, 10)).toThrow(expect.objectContaining({ name: "LayerError" }));
  },
);

test("a path longer than the kernel takes is refused, whatever there is in it", () => {
  expect(parseEntryPath(`a${"/.".repeat(2047)}`, 10)).toEqual({ folder: "", base: "a" });
  expect(() => parseEntryPath(`a${"/.".repeat(2048)}`, 10)).toThrow("a path longer than 4096 bytes");
});
