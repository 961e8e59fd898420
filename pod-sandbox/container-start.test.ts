import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { endContainer } from "./container-ending.ts";
import { startContainer } from "./container-start.ts";
import { isLive } from "./container.ts";
import { inCreated, testCall, testContainer, testSandbox } from "./testing.ts";
import { openTestHost } from "./testing-host.ts";
import type { TestHost } from "./testing-host.ts";

const pod = { ...testSandbox("pod"), state: "ready", ips: [] } as const;

let host: TestHost;
beforeEach(async () => {
  host = await openTestHost();
  await host.sandboxes.save(pod);
});
afterEach(() => host[Symbol.asyncDispose]());

describe("startContainer", () => {
  it("tells of no start after the end that was written down while the runtime took its time", async () => {
    const { id } = testContainer("web", pod);
    await host.containers.save(inCreated(testContainer("web", pod)));
    const ending = { startedAtNs: 0n, finishedAtNs: 1_000n, exitCode: 0, reason: "Completed", message: "" };
    Object.assign(host.runtime, {
      start: () => host.containers.update(id, (current) => (isLive(current) ? endContainer(current, ending) : current)),
    });
    await startContainer(testCall(), { containerId: id }, host);
    expect(host.containers.get(id)).toMatchObject({ state: "exited", startedAtNs: 1_000n, finishedAtNs: 1_000n });
  });
});
