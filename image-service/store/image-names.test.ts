import { expect, test } from "vitest";

import { mergeName, removeTag, settleTags } from "./image-names.ts";
import { type ImageName, type ImageRecord, repoDigestsOf, repoTagsOf } from "./image-record.ts";

const name = (tag: string | undefined, digit: string, pulledAtMs = 1): ImageName => ({
  repository: "h/r",
  ...(tag === undefined ? {} : { tag }),
  digest: `sha256:${digit.repeat(64)}`,
  pulledAtMs,
});
const record = (names: readonly ImageName[]): ImageRecord => ({
  schemaVersion: 1,
  type: "image",
  id: `sha256:${"f".repeat(64)}`,
  manifestDigest: `sha256:${"e".repeat(64)}`,
  names,
  layers: [],
  configJson: "{}",
});

test("a name pulled again is there once", () => {
  expect(mergeName([name("a", "1")], name("a", "1", 2))).toEqual([name("a", "1", 2)]);
});

test("a tag whose digest changed keeps the old digest without the tag", () => {
  const names = mergeName([name("a", "1")], name("a", "2", 2));
  expect(repoTagsOf(names)).toEqual(["h/r:a"]);
  expect(repoDigestsOf(names)).toEqual([`h/r@sha256:${"1".repeat(64)}`, `h/r@sha256:${"2".repeat(64)}`]);
});

test("pulling by digest adds no tag and takes none", () => {
  expect(repoTagsOf(mergeName([], name(undefined, "1")))).toEqual([]);
  expect(repoTagsOf(mergeName([name("a", "1")], name(undefined, "1")))).toEqual(["h/r:a"]);
});

test("a tag that moved away leaves the digest", () => {
  expect(removeTag([name("a", "1"), name("b", "1")], name("a", "2"))).toEqual([name(undefined, "1"), name("b", "1")]);
});

test("a tag claimed twice belongs to the latest pull", () => {
  const [older, newer] = settleTags([record([name("a", "1", 5)]), record([name("a", "2", 9)])]);
  expect(repoTagsOf(older?.names ?? [])).toEqual([]);
  expect(repoTagsOf(newer?.names ?? [])).toEqual(["h/r:a"]);
});
