import { chmod, mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { Code } from "../cri-api/index.ts";
import { testSandbox } from "./testing.ts";
import { giveToPodRoot, hostUserOf, letPodRootThrough, podRootOf, requireUserNamespaces } from "./user-namespace.ts";

const usernsOptions = {
  mode: "POD",
  uids: [{ containerId: 0, hostId: 100_000, length: 65_536 }],
  gids: [{ containerId: 0, hostId: 200_000, length: 65_536 }],
};
const { config: mapped } = testSandbox("mapped", {
  linux: { securityContext: { namespaceOptions: { usernsOptions } } },
});
const { config: plain } = testSandbox("plain");

describe("requireUserNamespaces", () => {
  const runtime = (userNamespaces: boolean) => ({
    handler: "old",
    features: { recursiveReadOnlyMounts: true, userNamespaces, networkDevices: false },
  });

  it("lets through what needs none, or what the handler can", () => {
    expect(() => requireUserNamespaces(runtime(false), plain)).not.toThrow();
    expect(() => requireUserNamespaces(runtime(true), mapped)).not.toThrow();
  });
  it("refuses what the handler cannot, by its name", () => {
    const attempt = (): void => requireUserNamespaces(runtime(false), mapped);
    expect(attempt).toThrow(/user namespaces are not supported by runtime handler "old"/);
    expect(attempt).toThrow(expect.objectContaining({ code: Code.FailedPrecondition }));
  });
});

describe("who is who", () => {
  it("counts from the first id of each range", () => {
    expect(podRootOf(mapped)).toEqual({ uid: 100_000, gid: 200_000 });
    expect(hostUserOf(mapped, { uid: 1000, gid: 33 })).toEqual({ hostUser: { uid: 101_000, gid: 200_033 } });
  });
  it("is nobody else without a user namespace", () => {
    expect(podRootOf(plain)).toBeUndefined();
    expect(hostUserOf(plain, { uid: 1000, gid: 33 })).toEqual({});
  });
});

describe("directories and files of ours", () => {
  it("stay as they are for a pod without a user namespace", async () => {
    const directory = await mkdtemp(join(tmpdir(), "berth-userns-"));
    onTestFinished(() => rm(directory, { recursive: true }));
    await chmod(directory, 0o700);
    const before = await stat(directory);
    await letPodRootThrough(plain, [directory]);
    await giveToPodRoot(plain, [directory]);
    const { mode, uid, gid } = await stat(directory);
    expect({ mode, uid, gid }).toEqual({ mode: before.mode, uid: before.uid, gid: before.gid });
  });
});
