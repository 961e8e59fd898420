import { describe, expect, test } from "vitest";

import { createPinning } from "./pinned.ts";
import { sha256 } from "./testing.ts";

const digest = sha256("x");
const pause = [{ repository: "registry.k8s.io/pause", tag: "3.10", digest, pulledAtMs: 0 }];
const untagged = [{ repository: "docker.io/library/busybox", digest, pulledAtMs: 0 }];

describe("an image is pinned by", () => {
  test.each([
    "registry.k8s.io/pause:3.10",
    "registry.k8s.io/pause*",
    "*pause*",
    "*:3.10",
    "REGISTRY.k8s.io/Pause:*",
    `registry.k8s.io/pause@${digest}`,
    "*/pause:3.*",
  ])("%s", (pattern) => {
    expect(createPinning(["other", pattern])(pause)).toBe(true);
    expect(createPinning([pattern])(untagged)).toBe(false);
  });
  test("a short name with its digest", () => {
    expect(createPinning([`busybox@${digest}`])(untagged)).toBe(true);
  });
});

test.each(["registry.k8s.io/pause:3.1", "registry.k8s.io/pause", "pause*", "*pause", "registry.k8s.io/pa.se:3.1*"])(
  "an image is not pinned by %s",
  (pattern) => {
    expect(createPinning([pattern])(pause)).toBe(false);
  },
);

test("without patterns nothing is pinned, and a malformed name is refused", () => {
  expect(createPinning([])(pause)).toBe(false);
  expect(() => createPinning(["a//b"])).toThrow("invalid image reference");
});
