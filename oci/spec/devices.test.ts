import { Code } from "../../cri-api/index.ts";
import { expect, test } from "vitest";
import { buildDevices, validateDevice } from "./devices.ts";
import type { ResolvedDevice } from "./input.ts";
import { buildProtectedPaths } from "./protected-paths.ts";
import { securityContext } from "./testing.ts";

const fuse: ResolvedDevice = {
  containerPath: "/dev/fuse",
  hostPath: "/dev/fuse",
  type: "c",
  major: 10,
  minor: 229,
  fileMode: 0o100_666,
  uid: 0,
  gid: 44,
  permissions: "mr",
};
const disk: ResolvedDevice = { ...fuse, containerPath: "/dev/vda", type: "b", major: 254, minor: 0, permissions: "" };
const host = { isPrivileged: false, devices: [disk], hasDevMount: false, hasUserNamespace: false };

test("makes the nodes that were asked for, and lets nothing else through", () => {
  expect(buildDevices([fuse], host)).toEqual({
    devices: [{ path: "/dev/fuse", type: "c", major: 10, minor: 229, fileMode: 0o666, uid: 0, gid: 44 }],
    mounts: [],
    rules: [
      { allow: false, access: "rwm" },
      { allow: true, type: "c", major: 10, minor: 229, access: "rm" },
    ],
  });
});

test("takes no permissions for all of them", () => {
  expect(buildDevices([disk], host).rules.at(-1)).toMatchObject({ type: "b", access: "rwm" });
});

test("gives a privileged container the host's devices, but its own terminals and console", () => {
  const own = ["/dev/pts/0", "/dev/console", "/dev/ptmx", "/dev/tty", "/dev/shm/x"].map((containerPath) => ({
    ...fuse,
    containerPath,
  }));
  const tty1 = { ...fuse, containerPath: "/dev/tty1" };
  const { devices, rules } = buildDevices([fuse], { ...host, isPrivileged: true, devices: [disk, fuse, tty1, ...own] });
  expect(devices.map(({ path }) => path)).toEqual(["/dev/vda", "/dev/fuse", "/dev/tty1"]);
  expect(rules).toEqual([{ allow: true, access: "rwm" }]);
});

test("makes no node in a host's directory that is mounted on /dev", () => {
  const elsewhere = { ...fuse, containerPath: "/devices/fuse" };
  const { devices, rules } = buildDevices([fuse, elsewhere], { ...host, hasDevMount: true });
  expect(devices.map(({ path }) => path)).toEqual(["/devices/fuse"]);
  expect(rules).toHaveLength(3);
});

test.each([
  { containerPath: "dev/x", hostPath: "/dev/x", permissions: "rwm" },
  { containerPath: "/dev/x", hostPath: "", permissions: "rwm" },
  { containerPath: "/dev/x", hostPath: "/dev/x", permissions: "rwx" },
  { containerPath: "/dev/x", hostPath: "/dev/x", permissions: "a" },
  { containerPath: "/", hostPath: "/dev/x", permissions: "" },
  { containerPath: "/dev/x\n", hostPath: "/dev/x", permissions: "" },
])("refuses the device %o", (device) => {
  expect(() => validateDevice(device)).toThrow(expect.objectContaining({ code: Code.InvalidArgument }));
});

test("takes the host's path for a missing container path", () => {
  expect(() => validateDevice({ containerPath: "", hostPath: "/dev/fuse", permissions: "rwm" })).not.toThrow();
});

test("masks and protects exactly the paths it is given", () => {
  const context = securityContext({ maskedPaths: ["/proc/keys/"], readonlyPaths: [] });
  expect(buildProtectedPaths(context)).toEqual({ maskedPaths: ["/proc/keys"], readonlyPaths: [] });
  expect(buildProtectedPaths({ ...context, privileged: true })).toEqual({ maskedPaths: [], readonlyPaths: [] });
});

test("protects a container without any security context by lists of its own", () => {
  expect(buildProtectedPaths(null).maskedPaths).toContain("/proc/kcore");
  expect(buildProtectedPaths(null).readonlyPaths).toContain("/proc/sys");
});

test.each(["proc/keys", "", "/proc/\nkeys"])("refuses the masked path %j", (path) => {
  expect(() => buildProtectedPaths(securityContext({ maskedPaths: [path] }))).toThrow(
    expect.objectContaining({ code: Code.InvalidArgument }),
  );
});

test("binds the host's nodes in a user namespace, where none can be made", () => {
  const elsewhere = { ...fuse, containerPath: "/devices/fuse" };
  const asked = { ...host, hasUserNamespace: true };
  const { devices, mounts, rules } = buildDevices([elsewhere, fuse], asked);
  expect(devices).toEqual([]);
  expect(rules).toEqual(buildDevices([elsewhere, fuse], host).rules);
  expect(mounts.map(({ source, destination }) => [source, destination])).toEqual([
    ["/dev/fuse", "/devices/fuse"],
    ["/dev/fuse", "/dev/fuse"],
  ]);
  const below = buildDevices([elsewhere, fuse], { ...asked, hasDevMount: true });
  expect(below.mounts.map(({ destination }) => destination)).toEqual(["/devices/fuse"]);
});
