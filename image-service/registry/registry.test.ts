import { describe, expect, test } from "vitest";

import { credentialsFingerprint, credentialsOf, registryHostOf } from "./credentials.ts";
import { failedAttempts, RegistryFailure } from "./failure.ts";
import { defaultRetry } from "./limits.ts";
import { parseRetryAfter, retryDelayMs } from "./retry.ts";
import { createTokenCache } from "./tokens.ts";

const noAuth = { username: "", password: "", auth: "", serverAddress: "", identityToken: "", registryToken: "" };
const policy = { ...defaultRetry, baseDelayMs: 100, maxDelayMs: 1000 };

describe("credentialsOf", () => {
  test("takes each form of AuthConfig", () => {
    expect(credentialsOf(null)).toBeUndefined();
    expect(credentialsOf(noAuth)).toBeUndefined();
    expect(credentialsOf({ ...noAuth, username: "u", password: "p" })).toEqual({
      kind: "basic",
      username: "u",
      password: "p",
    });
    const auth = Buffer.from("u:p:with:colons").toString("base64");
    expect(credentialsOf({ ...noAuth, auth })).toEqual({ kind: "basic", username: "u", password: "p:with:colons" });
    expect(credentialsOf({ ...noAuth, identityToken: "i" })).toEqual({ kind: "identity", identityToken: "i" });
    expect(credentialsOf({ ...noAuth, registryToken: "r" })).toEqual({ kind: "registry", registryToken: "r" });
  });

  test("refuses an auth field without a colon, and does not repeat it", () => {
    const auth = Buffer.from("secretsecret").toString("base64");
    expect(() => credentialsOf({ ...noAuth, auth })).toThrow(/^(?!.*secret).*base64/);
  });

  test("a fingerprint tells credentials apart and holds none of them", () => {
    const one = credentialsFingerprint({ kind: "basic", username: "u", password: "hunter2" });
    expect(one).not.toBe(credentialsFingerprint({ kind: "basic", username: "u", password: "hunter3" }));
    expect(one).not.toContain("hunter");
  });

  test("a server address is a host, whatever stands round it, and Docker Hub one of many names", () => {
    expect(registryHostOf("https://index.docker.io/v1/")).toBe("docker.io");
    expect(registryHostOf("registry-1.docker.io")).toBe("docker.io");
    expect(registryHostOf("quay.io")).toBe("quay.io");
    expect(registryHostOf("https://Quay.io:443/path")).toBe("quay.io");
    expect(registryHostOf("")).toBe("");
  });
});

describe("errors", () => {
  test("name every host, and mark a refused connection for kubelet", () => {
    const refused = new RegistryFailure("unreachable", "connection refused");
    const absent = new RegistryFailure("absent", "not found (404)");
    const error = failedAttempts("cannot pull x", [
      { host: "m", isMirror: true, failure: absent },
      { host: "h", isMirror: false, failure: refused },
    ]);
    expect(error.message).toBe(
      'RegistryUnavailable: cannot pull x: mirror "m": not found (404); host "h": connection refused',
    );
    expect(error.code).toBe(2);
  });
});

describe("retries", () => {
  test("wait as long as the registry asks, within bounds", () => {
    expect(parseRetryAfter("7", 0)).toBe(7000);
    expect(parseRetryAfter("Thu, 01 Jan 1970 00:00:10 GMT", 4000)).toBe(6000);
    expect(parseRetryAfter("soon", 0)).toBeUndefined();
    expect(parseRetryAfter(undefined, 0)).toBeUndefined();
    expect(retryDelayMs(policy, 1, new RegistryFailure("throttled", "", { retryAfterMs: 300 }))).toBe(300);
    expect(retryDelayMs(policy, 1, new RegistryFailure("throttled", "", { retryAfterMs: 1e9 }))).toBe(1000);
    expect(retryDelayMs(policy, 3, new RegistryFailure("broken", ""))).toBe(400);
  });
});

describe("tokens", () => {
  test("are used until shortly before their end, and the cache stays bounded", () => {
    const cache = createTokenCache();
    cache.set("old", { value: "x", expiresAtMs: Date.now() + 1000 });
    cache.set("new", { value: "y", expiresAtMs: Date.now() + 60_000 });
    expect(cache.get("old")).toBeUndefined();
    expect(cache.get("new")?.value).toBe("y");
    for (let index = 0; index < 1000; index += 1) cache.set(`k${index}`, { value: "z", expiresAtMs: 1e15 });
    expect(cache.entries().length).toBeLessThanOrEqual(256);
  });
});
