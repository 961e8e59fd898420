import { expect, test } from "vitest";
import { withSwapLimitOfItsOwn } from "./swap-limit.ts";

const config = {
  handler: "crun",
  path: "/usr/bin/crun",
  root: "/r",
  monitorPath: "/usr/bin/conmon",
  stateDir: "/s",
  cgroupDriver: "systemd",
} as const;
const v2 = { unified: { mountPoint: "/sys/fs/cgroup", root: "/" }, controllers: {} };
const v1 = { unified: undefined, controllers: { memory: { mountPoint: "/sys/fs/cgroup/memory", root: "/" } } };
const crun = { program: "crun", config, cgroupMounts: v2 };

test("crun under systemd is told the limit of swap without the memory in it", () => {
  expect(withSwapLimitOfItsOwn(crun, { memory: { limit: 100, swap: 100 } })).toEqual({
    memory: { limit: 100 },
    unified: { "memory.swap.max": "0" },
  });
  const own = { "memory.swap.max": "7", "pids.max": "9" };
  expect(withSwapLimitOfItsOwn(crun, { memory: { limit: 100, swap: 130 }, unified: own }).unified).toEqual(own);
});

test.each([
  ["no swap limit", crun, { memory: { limit: 100 } }],
  ["unlimited swap", crun, { memory: { limit: 100, swap: -1 } }],
  ["no memory", crun, { cpu: { shares: 2 } }],
  ["runc", { ...crun, program: "runc" }, { memory: { limit: 100, swap: 100 } }],
  ["cgroupfs", { ...crun, config: { ...config, cgroupDriver: "cgroupfs" } }, { memory: { limit: 100, swap: 100 } }],
  ["cgroup v1", { ...crun, cgroupMounts: v1 }, { memory: { limit: 100, swap: 100 } }],
] as const)("%s is passed on as it is", (_, host, resources) => {
  expect(withSwapLimitOfItsOwn(host, resources)).toBe(resources);
});
