import { expect, test } from "vitest";

import { platformRank } from "./platform.ts";

const arm64 = { os: "linux", architecture: "arm64", variant: "v8" };

test("another system or processor never fits", () => {
  expect(platformRank(arm64, { os: "windows", architecture: "arm64" })).toBeUndefined();
  expect(platformRank(arm64, { os: "linux", architecture: "amd64" })).toBeUndefined();
});

test("arm64 takes v8 and entries that name no variant", () => {
  expect(platformRank(arm64, arm64)).toBe(0);
  expect(platformRank(arm64, { os: "linux", architecture: "arm64" })).toBe(1);
});

test("32-bit arm takes its own variant before older ones, and no newer one", () => {
  const v7 = { os: "linux", architecture: "arm", variant: "v7" };
  const rank = (variant: string): number | undefined => platformRank(v7, { ...v7, variant });
  expect(rank("v7")).toBe(0);
  expect(rank("v6")).toBe(1);
  expect(rank("v8")).toBeUndefined();
});
