import { Code } from "../../cri-api/index.ts";
import type { cri } from "../../cri-api/index.ts";
import { describe, expect, test } from "vitest";
import { buildApparmorProfile, buildSelinuxLabels, isUnconfinedBySelinux } from "./security-labels.ts";
import { sandboxConfig, securityContext } from "./testing.ts";

const loaded = { defaultProfile: "berth-default" };
const localhost = (localhostRef: string) => securityContext({ apparmor: { profileType: "Localhost", localhostRef } });

describe("buildApparmorProfile", () => {
  test.each([
    ["nothing", securityContext(), "berth-default"],
    [
      "RuntimeDefault",
      securityContext({ apparmor: { profileType: "RuntimeDefault", localhostRef: "" } }),
      "berth-default",
    ],
    ["Unconfined", securityContext({ apparmor: { profileType: "Unconfined", localhostRef: "" } }), "unconfined"],
    ["Localhost", localhost("mine"), "mine"],
    ["Localhost with the old prefix", localhost("localhost/mine"), "mine"],
    ["the old string", securityContext({ apparmorProfile: "localhost/mine" }), "mine"],
    ["the old default", securityContext({ apparmorProfile: "runtime/default" }), "berth-default"],
    ["privileged", { ...localhost("mine"), privileged: true }, undefined],
  ])("%s", (_, context, expected) => {
    expect(buildApparmorProfile(context, loaded)).toBe(expected);
  });

  test("is nothing on a host without AppArmor, unless a profile was asked for by name", () => {
    expect(buildApparmorProfile(securityContext(), undefined)).toBeUndefined();
    expect(buildApparmorProfile(null, {})).toBeUndefined();
    expect(() => buildApparmorProfile(localhost("mine"), undefined)).toThrow(
      expect.objectContaining({ code: Code.FailedPrecondition }),
    );
  });

  test.each([
    localhost(""),
    localhost("localhost/"),
    localhost("a\nb"),
    localhost("a b"),
    securityContext({ apparmorProfile: "other" }),
  ])("refuses a malformed profile", (context) => {
    expect(() => buildApparmorProfile(context, loaded)).toThrow(
      expect.objectContaining({ code: Code.InvalidArgument }),
    );
  });
});

describe("buildSelinuxLabels", () => {
  const host = {
    defaults: { process: "system_u:system_r:container_t:s0", file: "system_u:object_r:container_file_t:s0" },
    level: "s0:c1,c2",
  };
  const options = (given: Partial<cri.SELinuxOption>): cri.SELinuxOption => ({
    user: "",
    role: "",
    type: "",
    level: "",
    ...given,
  });
  const namespaces = (given: Partial<cri.NamespaceOption>): cri.NamespaceOption => ({
    network: "POD",
    pid: "CONTAINER",
    ipc: "POD",
    targetId: "",
    usernsOptions: null,
    ...given,
  });

  test("are those of the policy at the level of the pod", () => {
    const labels = {
      process: "system_u:system_r:container_t:s0:c1,c2",
      file: "system_u:object_r:container_file_t:s0:c1,c2",
    };
    expect(buildSelinuxLabels(sandboxConfig(), securityContext(), host)).toEqual(labels);
    expect(buildSelinuxLabels(sandboxConfig(), null, host)).toEqual(labels);
  });

  test("follow the container's options, then the pod's, part by part", () => {
    const sandbox = sandboxConfig({ selinuxOptions: options({ user: "pod_u", type: "pod_t", level: "s0:c7" }) });
    const context = securityContext({ selinuxOptions: options({ role: "own_r", type: "own_t" }) });
    expect(buildSelinuxLabels(sandbox, context, host)).toEqual({
      process: "pod_u:own_r:own_t:s0:c7",
      file: "system_u:object_r:container_file_t:s0:c7",
    });
  });

  test.each([
    ["a privileged container", sandboxConfig(), securityContext({ privileged: true })],
    ["the host's processes", sandboxConfig(), securityContext({ namespaceOptions: namespaces({ pid: "NODE" }) })],
    ["the host's shared memory", sandboxConfig({ namespaceOptions: namespaces({ ipc: "NODE" }) }), securityContext()],
  ])("%s is not confined, and its files are the pod's", (_, sandbox, context) => {
    const labels = buildSelinuxLabels(sandbox, context, host);
    expect(labels).toEqual({
      process: "system_u:system_r:spc_t:s0",
      file: "system_u:object_r:container_file_t:s0:c1,c2",
    });
    expect(labels && isUnconfinedBySelinux(labels)).toBe(true);
  });

  test("an unconfined container keeps a type and level that it asks for", () => {
    const context = securityContext({ privileged: true, selinuxOptions: options({ type: "own_t", level: "s0:c3" }) });
    const labels = buildSelinuxLabels(sandboxConfig(), context, host);
    expect(labels?.process).toBe("system_u:system_r:own_t:s0:c3");
    expect(labels && isUnconfinedBySelinux(labels)).toBe(false);
  });

  test("are none without a policy", () => {
    const context = securityContext({ selinuxOptions: options({ level: "s0:c3" }) });
    expect(buildSelinuxLabels(sandboxConfig(), context, { level: "s0:c1,c2" })).toBeUndefined();
  });

  test.each(["s0", "s0:c1", "s0:c1,c2", "s0:c0.c1023", "s0-s15:c0.c1023", "s0:c1-s0:c1.c4,c9"])(
    "takes the level %s",
    (level) => {
      const context = securityContext({ selinuxOptions: options({ level }) });
      expect(buildSelinuxLabels(sandboxConfig(), context, host)?.process).toBe(
        `system_u:system_r:container_t:${level}`,
      );
    },
  );

  test.each([
    { level: "s0,c4,c5" },
    { level: "s0:" },
    { level: "s0:c1," },
    { level: "c1" },
    { level: 's0:c1",x' },
    { type: "a:b" },
    { type: "a b" },
    { role: "a\n" },
    { user: "u".repeat(256) },
  ])("refuses $level$type$role$user", (given) => {
    const context = securityContext({ selinuxOptions: options(given) });
    expect(() => buildSelinuxLabels(sandboxConfig(), context, host)).toThrow(
      expect.objectContaining({ code: Code.InvalidArgument }),
    );
  });
});
