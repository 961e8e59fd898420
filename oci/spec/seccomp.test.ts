import { Code } from "../../cri-api/index.ts";
import { describe, expect, test } from "vitest";
import { parseSeccompProfile } from "./seccomp-file.ts";
import { buildSeccomp, chooseSeccomp, localhostSeccompPath } from "./seccomp.ts";
import { containerConfig, securityContext } from "./testing.ts";

const target = { architecture: "x86_64", capabilities: [] } as const;
const supported = { isSupported: true, localhost: undefined };

describe("chooseSeccomp", () => {
  test.each([
    ["no context", null, "unconfined"],
    ["nothing", securityContext(), "unconfined"],
    ["an empty profile", securityContext({ seccomp: { profileType: "RuntimeDefault", localhostRef: "" } }), "default"],
    ["Unconfined", securityContext({ seccomp: { profileType: "Unconfined", localhostRef: "" } }), "unconfined"],
    ["the old word for the default", securityContext({ seccompProfilePath: "runtime/default" }), "default"],
    ["the older word for it", securityContext({ seccompProfilePath: "docker/default" }), "default"],
    ["the old unconfined", securityContext({ seccompProfilePath: "unconfined" }), "unconfined"],
    [
      "privileged",
      securityContext({ privileged: true, seccomp: { profileType: "Localhost", localhostRef: "/p" } }),
      "unconfined",
    ],
    [
      "the structured field over the string",
      securityContext({
        seccomp: { profileType: "Unconfined", localhostRef: "" },
        seccompProfilePath: "runtime/default",
      }),
      "unconfined",
    ],
  ])("%s", (_, context, kind) => {
    expect(chooseSeccomp(context)).toEqual({ kind });
  });

  test("finds the path of a localhost profile in either field", () => {
    const structured = securityContext({ seccomp: { profileType: "Localhost", localhostRef: "/var//p.json" } });
    const string = securityContext({ seccompProfilePath: "localhost//var/p.json" });
    for (const context of [structured, string]) {
      const config = containerConfig({ linux: { resources: null, securityContext: context } });
      expect(localhostSeccompPath(config)).toBe("/var/p.json");
    }
    expect(localhostSeccompPath(containerConfig())).toBeUndefined();
  });

  test.each(["runtime/other", "localhost/", "localhost/relative", "Unconfined", "localhost//a\nb"])(
    "refuses the profile %j",
    (seccompProfilePath) => {
      expect(() => chooseSeccomp(securityContext({ seccompProfilePath }))).toThrow(
        expect.objectContaining({ code: Code.InvalidArgument }),
      );
    },
  );
});

describe("buildSeccomp", () => {
  test("is nothing for unconfined and our profile for the default", () => {
    expect(buildSeccomp({ kind: "unconfined" }, target, supported)).toBeUndefined();
    expect(buildSeccomp({ kind: "default" }, target, supported)?.defaultAction).toBe("SCMP_ACT_ERRNO");
  });

  test("runs the default without a filter on a kernel that has none, but not a profile asked for by name", () => {
    const none = { isSupported: false, localhost: undefined };
    expect(buildSeccomp({ kind: "default" }, target, none)).toBeUndefined();
    expect(() => buildSeccomp({ kind: "localhost", path: "/p" }, target, none)).toThrow(
      expect.objectContaining({ code: Code.FailedPrecondition }),
    );
  });

  test("never runs a localhost container without its profile", () => {
    expect(() => buildSeccomp({ kind: "localhost", path: "/p" }, target, supported)).toThrow(/"\/p" was not loaded/);
    const localhost = parseSeccompProfile(Buffer.from('{"defaultAction":"SCMP_ACT_LOG"}'));
    expect(buildSeccomp({ kind: "localhost", path: "/p" }, target, { isSupported: true, localhost })).toEqual({
      defaultAction: "SCMP_ACT_LOG",
      syscalls: [],
    });
  });
});
