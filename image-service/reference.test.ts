import { describe, expect, test } from "vitest";

import { Code, CriError } from "../cri-api/index.ts";
import { formatReference, parseImageReference, repositoryOf } from "./reference.ts";

const hex = "9700f9a2f5bf2c45f2f605a0bd3bce7cf37420ec9d3ed50ac2758413308766bf";

describe("parseImageReference", () => {
  test.each([
    ["busybox", "docker.io/library/busybox:latest"],
    ["busybox:1.36", "docker.io/library/busybox:1.36"],
    ["user/app", "docker.io/user/app:latest"],
    ["docker.io/busybox", "docker.io/library/busybox:latest"],
    ["index.docker.io/user/app:x", "docker.io/user/app:x"],
    ["registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"],
    ["localhost/app", "localhost/app:latest"],
    ["localhost:5000/app", "localhost:5000/app:latest"],
    ["127.0.0.1:5000/a/b/c:v1", "127.0.0.1:5000/a/b/c:v1"],
    ["[::1]:5000/app:v1", "[::1]:5000/app:v1"],
    ["Example.com/app", "example.com/app:latest"],
    ["UPPER/app", "upper:443/app:latest"],
    ["a__b/c---d", "docker.io/a__b/c---d:latest"],
    [`busybox@sha256:${hex}`, `docker.io/library/busybox@sha256:${hex}`],
    [`busybox:1.36@sha256:${hex}`, `docker.io/library/busybox@sha256:${hex}`],
    [`host.example:5000/app:t@sha256:${hex}`, `host.example:5000/app@sha256:${hex}`],
  ])("completes %j to %j", (text, full) => {
    expect(formatReference(parseImageReference(text))).toBe(full);
  });

  test.each([
    ["Registry.Example:443/app", "registry.example/app:latest"],
    ["registry.example:0443/app", "registry.example/app:latest"],
    ["REGISTRY.example:5000/app", "registry.example:5000/app:latest"],
    ["registry.example:80/app", "registry.example:80/app:latest"],
    ["DOCKER.io:443/busybox", "docker.io/library/busybox:latest"],
    ["LocalHost/app", "localhost/app:latest"],
    ["host:443/app", "host:443/app:latest"],
    ["127.1:5000/app", "127.0.0.1:5000/app:latest"],
    ["0x7f000001/app", "docker.io/0x7f000001/app:latest"],
    ["[0:0::1]:443/app", "[::1]/app:latest"],
  ])("knows one spelling of the host in %j", (text, full) => {
    expect(formatReference(parseImageReference(text))).toBe(full);
    expect(formatReference(parseImageReference(full))).toBe(full);
  });

  test("drops the tag where a digest decides", () => {
    expect(parseImageReference(`busybox:1.36@sha256:${hex}`)).toMatchObject({
      tag: undefined,
      digest: `sha256:${hex}`,
    });
  });

  test("is stable: the full form parses to itself", () => {
    for (const text of ["busybox", "localhost/a/b:1", `quay.io/x@sha256:${hex}`]) {
      const full = formatReference(parseImageReference(text));
      expect(formatReference(parseImageReference(full))).toBe(full);
    }
  });

  test.each([
    [""],
    [":"],
    ["@"],
    ["/"],
    ["busybox:"],
    ["host:99999/app"],
    ["registry.256/app"],
    ["busybox:-x"],
    [`busybox:${"x".repeat(129)}`],
    ["Busybox"],
    ["a//b"],
    ["a/../b"],
    ["../etc/passwd"],
    ["/etc/passwd"],
    ["a/b/"],
    ["a b"],
    ["a\nb"],
    ["a\0b"],
    ["http://example.com/a"],
    ["example.com:port/a"],
    ["-host.com/a"],
    ["a.-b/c.d:x/y"],
    ["busybox@sha256:"],
    ["busybox@sha256:abc"],
    [`busybox@sha256:${hex.toUpperCase()}`],
    [`busybox@sha256:../../${hex}`],
    [`busybox@md5:${hex}`],
    [`busybox@sha256:${hex}@sha256:${hex}`],
    [hex],
    ["ü/x"],
    [`a/${"b".repeat(300)}`],
    ["a".repeat(5000)],
    [`${"a-".repeat(400)}!`],
  ])("refuses %j with InvalidArgument and a bounded text", (text) => {
    const thrown = catchError(() => parseImageReference(text));
    expect(thrown.code).toBe(Code.InvalidArgument);
    expect(thrown.message.length).toBeLessThan(600);
    expect(thrown.message).not.toMatch(/[\n\0]/);
  });

  test("accepts nothing that generated noise could smuggle into a path or a URL", () => {
    let seed = 1;
    const random = (below: number): number => {
      seed = (seed * 48271) % 2147483647;
      return seed % below;
    };
    const alphabet = "ab1./:@-_%\\ \n\0#?&sha256:é";
    for (let round = 0; round < 20_000; round += 1) {
      const text = Array.from({ length: random(24) }, () => alphabet[random(alphabet.length)]).join("");
      try {
        const reference = parseImageReference(text);
        expect(repositoryOf(reference)).toMatch(/^[A-Za-z0-9.:[\]-]+(?:\/[a-z0-9._-]+)+$/);
        expect(reference.path.split("/")).not.toContain("..");
      } catch (thrown) {
        if (!(thrown instanceof CriError)) throw thrown;
      }
    }
  });
});

function catchError(work: () => unknown): CriError {
  try {
    work();
  } catch (thrown) {
    if (thrown instanceof CriError) return thrown;
    throw thrown;
  }
  throw new Error("nothing was thrown");
}
