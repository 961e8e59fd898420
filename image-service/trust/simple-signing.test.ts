import { expect, test } from "vitest";

import { parseClaim } from "./simple-signing.ts";

const digest = `sha256:${"1".repeat(64)}`;
const type = "atomic container signature";
const critical = { type, image: { "docker-manifest-digest": digest }, identity: { "docker-reference": "h.x/a:1" } };
const parse = (document: unknown, kind: "simple-signing" | "sigstore" = "simple-signing"): unknown =>
  parseClaim(kind, Buffer.from(JSON.stringify(document)));

test("reads manifest and name; what is optional may be anything well-formed", () => {
  const optional = { creator: "someone", timestamp: 1_483_228_800, more: {} };
  expect(parse({ critical, optional })).toEqual({ manifestDigest: digest, dockerReference: "h.x/a:1" });
});

test("cosign's payloads have a type of their own, and may leave out what is optional", () => {
  const cosign = { critical: { ...critical, type: "cosign container image signature" }, optional: null };
  expect(parse(cosign, "sigstore")).toEqual({ manifestDigest: digest, dockerReference: "h.x/a:1" });
  expect(() => parse(cosign)).toThrow("malformed");
  expect(() => parse({ critical, optional: null })).toThrow("malformed");
  expect(() => parse({ critical, optional: {} }, "sigstore")).toThrow("malformed");
});

test.each([
  ["no optional", { critical }],
  ["another member", { critical, optional: {}, more: 1 }],
  ["another critical member", { critical: { ...critical, more: 1 }, optional: {} }],
  ["another way to name the image", { critical: { ...critical, image: { ...critical.image, size: 1 } }, optional: {} }],
  [
    "another way to claim an identity",
    { critical: { ...critical, identity: { ...critical.identity, x: 1 } }, optional: {} },
  ],
  ["another type", { critical: { ...critical, type: "x" }, optional: {} }],
  ["no identity", { critical: { ...critical, identity: {} }, optional: {} }],
  [
    "a digest that is none",
    { critical: { ...critical, image: { "docker-manifest-digest": "sha256:1" } }, optional: {} },
  ],
  ["a creator that is no text", { critical, optional: { creator: 1 } }],
  ["a time with a fraction", { critical, optional: { timestamp: 1.5 } }],
  ["a list", []],
])("refuses %s", (_, document) => {
  expect(() => parse(document)).toThrow("malformed");
});
