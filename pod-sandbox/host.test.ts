import { describe, expect, test } from "vitest";
import { Code } from "../cri-api/index.ts";
import { cgroupsPathOf, validateCgroupParent } from "./host.ts";

const config = {
  root: "/r",
  state: "/s",
  defaultRuntime: "crun",
  imageVolumes: "mkdir",
  runtimeVersion: "1.0.0",
} as const;
const systemd = { config: { ...config, cgroupDriver: "systemd" } } as const;
const cgroupfs = { config: { ...config, cgroupDriver: "cgroupfs" } } as const;

describe("with the systemd driver", () => {
  test.each([
    ["", "system.slice:berth:c1"],
    ["/", "system.slice:berth:c1"],
    ["test.slice", "test.slice:berth:c1"],
    ["/test.slice", "test.slice:berth:c1"],
    [
      "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podab_cd.slice",
      "kubepods-burstable-podab_cd.slice:berth:c1",
    ],
    ["/kubepods.slice/kubepods-pod1.slice/", "kubepods-pod1.slice:berth:c1"],
  ])("the parent %j makes the container's path %j", (parent, path) => {
    validateCgroupParent(systemd, parent);
    expect(cgroupsPathOf(systemd, parent, "c1")).toBe(path);
  });

  test.each([
    "/kubepods",
    "a:b.slice",
    "/a--b.slice",
    "-.slice",
    "a-.slice",
    "x.slice/y",
    "é.slice",
    "a.slice/../b.slice",
  ])("the parent %j is refused", (parent) => {
    expect(() => validateCgroupParent(systemd, parent)).toThrow(
      expect.objectContaining({ code: Code.InvalidArgument }),
    );
  });
});

test("with the cgroupfs driver the parent is a path", () => {
  expect(cgroupsPathOf(cgroupfs, "/kubepods/pod1/", "c1")).toBe("/kubepods/pod1/berth-c1");
  expect(cgroupsPathOf(cgroupfs, "", "c1")).toBe("/berth-c1");
  expect(() => validateCgroupParent(cgroupfs, "/a/../b")).toThrow(
    expect.objectContaining({ code: Code.InvalidArgument }),
  );
});
