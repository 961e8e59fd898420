import { Code } from "../cri-api/index.ts";
import { describe, expect, test } from "vitest";
import type { ResolvedMount } from "../oci/index.ts";
import { createSelinuxLevels, sourcesToRelabel } from "./selinux.ts";
import { testSandbox } from "./testing.ts";

const lastPair = (1024 * 1023) / 2 - 1;

describe("createSelinuxLevels", () => {
  const none = { all: () => [] };

  test("goes through the pairs of categories, lower first, and starts anew after the last", () => {
    const draw = createSelinuxLevels(none, lastPair - 1);
    expect([draw(), draw(), draw(), draw(), draw()]).toEqual([
      "s0:c1021,c1023",
      "s0:c1022,c1023",
      "s0:c0,c1",
      "s0:c0,c2",
      "s0:c1,c2",
    ]);
  });

  test("passes over what a pod has", () => {
    const all = () => [
      { ...testSandbox("one"), selinuxLevel: "s0:c0,c1" },
      { ...testSandbox("two"), selinuxLevel: "s0:c1,c2" },
    ];
    const draw = createSelinuxLevels({ all }, 0);
    expect([draw(), draw()]).toEqual(["s0:c0,c2", "s0:c0,c3"]);
  });

  test("never draws the same pair twice before all were drawn", () => {
    const draw = createSelinuxLevels(none);
    expect(new Set(Array.from({ length: 2000 }, draw)).size).toBe(2000);
  });
});

describe("sourcesToRelabel", () => {
  const mount = (sourcePath: string, selinuxRelabel = true) =>
    ({ mount: { selinuxRelabel }, sourcePath }) as ResolvedMount;
  const labels = { process: "u:r:container_t:s0:c1,c2", file: "u:r:f:s0:c1,c2" };

  test("are those that were asked for", () => {
    const mounts = [mount("/data/volume"), mount("/data/other", false), mount("/var/lib/kubelet/pods/x/volume")];
    expect(sourcesToRelabel(mounts, labels)).toEqual(["/data/volume", "/var/lib/kubelet/pods/x/volume"]);
  });

  test("are none for a container that is not confined, or without SELinux", () => {
    expect(sourcesToRelabel([mount("/data/volume")], { ...labels, process: "u:r:spc_t:s0" })).toEqual([]);
    expect(sourcesToRelabel([mount("/data/volume")], undefined)).toEqual([]);
  });

  test.each(["/", "/etc", "/etc/passwd", "/home", "/usr", "/usr/lib", "/var", "/var/lib", "/proc/sys", "/dev/sda"])(
    "never %s",
    (path) => {
      expect(() => sourcesToRelabel([mount(path)], labels)).toThrow(
        expect.objectContaining({ code: Code.InvalidArgument }),
      );
    },
  );
});
