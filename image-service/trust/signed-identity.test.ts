import { expect, test } from "vitest";

import { parseImageReference } from "../reference.ts";
import type { SignedIdentity } from "./policy.ts";
import { matchesIdentity } from "./signed-identity.ts";

const digest = `sha256:${"1".repeat(64)}`;
const remap: SignedIdentity = { type: "remapIdentity", prefix: "mirror:5000/vendor", signedPrefix: "vendor.example" };
const exactReference: SignedIdentity = { type: "exactReference", dockerReference: "vendor.example/a:1" };
const exactRepository: SignedIdentity = { type: "exactRepository", dockerRepository: "vendor.example/a" };

test.each<[SignedIdentity | SignedIdentity["type"], string, string, boolean]>([
  ["matchExact", "h.x/a:1", "h.x/a:1", true],
  ["matchExact", "busybox", "docker.io/library/busybox:latest", true],
  ["matchExact", "docker.io/library/busybox:latest", "busybox:latest", true],
  ["matchExact", "h.x/a:1", "h.x/a:2", false],
  ["matchExact", "h.x/a:latest", "h.x/a", false],
  ["matchExact", `h.x/a@${digest}`, "h.x/a:1", false],
  ["matchExact", `h.x/a@${digest}`, `h.x/a@${digest}`, true],
  ["matchRepoDigestOrExact", "h.x/a:1", "h.x/a:1", true],
  ["matchRepoDigestOrExact", "h.x/a:1", "h.x/a:2", false],
  ["matchRepoDigestOrExact", "h.x/a:1", "h.x/a", false],
  ["matchRepoDigestOrExact", "h.x/a:1", `h.x/a:1@${digest}`, false],
  ["matchRepoDigestOrExact", `h.x/a@${digest}`, "h.x/a:1", true],
  ["matchRepoDigestOrExact", `h.x/a@${digest}`, "h.x/ab:1", false],
  ["matchRepository", "h.x/a:1", "h.x/a:2", true],
  ["matchRepository", "h.x/a:1", "h.x/a", true],
  ["matchRepository", "h.x/a:1", "h.y/a:1", false],
  [exactReference, "mirror:5000/x:9", "vendor.example/a:1", true],
  [exactReference, "mirror:5000/x:9", "vendor.example/a:2", false],
  [exactReference, "vendor.example/a:1", "vendor.example/a", false],
  [exactRepository, "mirror:5000/x:9", "vendor.example/a:2", true],
  [exactRepository, "mirror:5000/x:9", "vendor.example/b:2", false],
  [remap, "mirror:5000/vendor/a:1", "vendor.example/a:1", true],
  [remap, "mirror:5000/vendor/a:1", "mirror:5000/vendor/a:1", false],
  [remap, "mirror:5000/vendor/a:1", "vendor.example/a:2", false],
  [remap, `mirror:5000/vendor/a@${digest}`, "vendor.example/a:2", true],
  [remap, "mirror:5000/vendors/a:1", "mirror:5000/vendors/a:1", true],
  [remap, "mirror:5000/vendors/a:1", "vendor.examples/a:1", false],
])("%j: an image asked for as %s and signed as %s: %s", (rule, asked, signed, matches) => {
  const identity = typeof rule === "string" ? ({ type: rule } as SignedIdentity) : rule;
  expect(matchesIdentity(identity, parseImageReference(asked), signed)).toBe(matches);
});

test("a claim that is no name is an error", () => {
  expect(() => matchesIdentity({ type: "matchRepository" }, parseImageReference("a"), "../x")).toThrow(
    "invalid image reference",
  );
});

test("a prefix that leads to no full name is an error", () => {
  const rule: SignedIdentity = { type: "remapIdentity", prefix: "h.x", signedPrefix: "short" };
  expect(() => matchesIdentity(rule, parseImageReference("h.x/a:1"), "short/a:1")).toThrow("full name");
});
