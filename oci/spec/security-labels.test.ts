import { Code } from "../../cri-api/index.ts";
import { describe, expect, test } from "vitest";
import { buildApparmorProfile, buildSelinuxLabels } from "./security-labels.ts";
import { securityContext } from "./testing.ts";

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
  const options = { user: "", role: "", type: "", level: "s0:c1,c2" };

  test("fills in the usual user, role and type", () => {
    expect(buildSelinuxLabels(securityContext({ selinuxOptions: options }), true)).toEqual({
      process: "system_u:system_r:container_t:s0:c1,c2",
      mount: "system_u:object_r:container_file_t:s0:c1,c2",
    });
    const privileged = securityContext({ selinuxOptions: options, privileged: true });
    expect(buildSelinuxLabels(privileged, true).process).toContain(":spc_t:");
  });

  test("is nothing without SELinux or without options", () => {
    expect(buildSelinuxLabels(securityContext({ selinuxOptions: options }), false)).toEqual({});
    expect(buildSelinuxLabels(securityContext(), true)).toEqual({});
  });

  test("refuses a part that would be more than one", () => {
    for (const type of ["a:b", "a b", "a\n"]) {
      const context = securityContext({ selinuxOptions: { ...options, type } });
      expect(() => buildSelinuxLabels(context, true)).toThrow(expect.objectContaining({ code: Code.InvalidArgument }));
    }
  });
});
