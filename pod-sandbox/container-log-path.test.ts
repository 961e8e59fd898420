import { describe, expect, it } from "vitest";
import { Code } from "../cri-api/index.ts";
import { requireLogFile } from "./container-log-path.ts";

const path = "/var/log/pods/web/0.log";
const device = { major: 0, minor: 0 };

describe("requireLogFile", () => {
  it.each([
    ["file", true],
    ["absent", false],
  ] as const)("takes a place where a %s is", (kind, isThere) => {
    expect(requireLogFile(path, { path: "/var/log/pods/web", kind, device, identity: "1:1:1" })).toBe(isThere);
  });

  it.each([
    ["EISDIR", Code.FailedPrecondition, `log path "${path}" is a directory`],
    ["ETIMEDOUT", Code.DeadlineExceeded, `log path "${path}" is on a file system that does not answer`],
    ["ENOTCONN", Code.FailedPrecondition, `log path "${path}" cannot be had: ENOTCONN`],
    ["ENOSPC", Code.ResourceExhausted, `log path "${path}" cannot be had: ENOSPC`],
  ])("tells %s by the path", (error, code, message) => {
    expect(() => requireLogFile(path, { error })).toThrow(expect.objectContaining({ code, message }));
  });
});
