import { expect, test } from "vitest";

import { amd64Variant, platformRank } from "./platform.ts";

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

test("an entry that names no variant, or none that is known, comes last or not at all", () => {
  const v7 = { os: "linux", architecture: "arm", variant: "v7" };
  expect(platformRank(v7, { ...v7, variant: undefined })).toBe(3);
  expect(platformRank(v7, { ...v7, variant: "v70" })).toBeUndefined();
  expect(platformRank(arm64, { ...arm64, variant: "v9" })).toBeUndefined();
});

const cpuinfoOf = (flags: string): string => `processor\t: 0\nflags\t\t: fpu ${flags} end\nbogomips\t: 1\n`;
const v2 = "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3";
const v3 = `${v2} abm avx avx2 bmi1 bmi2 f16c fma movbe xsave`;
const v4 = `${v3} avx512f avx512bw avx512cd avx512dq avx512vl`;

test.each([
  ["", undefined],
  ["ssse3 avx2", undefined],
  [v2, "v2"],
  [`${v2} avx2`, "v2"],
  [v3, "v3"],
  [v4, "v4"],
  [v4.replace("sse4_1", ""), undefined],
])("a processor with %j has the level %s", (flags, variant) => {
  expect(amd64Variant(cpuinfoOf(flags))).toBe(variant);
});

test("amd64 takes the highest level that the processor has, and no higher one", () => {
  const host = { os: "linux", architecture: "amd64", variant: "v3" };
  const rank = (variant?: string): number | undefined => platformRank(host, { ...host, variant });
  expect([rank("v3"), rank("v2"), rank(), rank("v1")]).toEqual([0, 1, 2, 3]);
  expect(rank("v4")).toBeUndefined();
  expect(platformRank({ os: "linux", architecture: "amd64" }, { ...host, variant: "v2" })).toBeUndefined();
});
