import { describe, expect, it, vi } from "vitest";
import { Code, CriError } from "../cri-api/index.ts";
import { collectNetworkGarbage } from "./network-garbage.ts";
import type { RecordStore } from "./record-store.ts";
import type { Sandbox } from "./sandbox.ts";
import { silentLog, testId, testSandbox } from "./testing.ts";
import { createFakeNetwork } from "./testing-host.ts";

const hostNetwork = { linux: { securityContext: { namespaceOptions: { network: "NODE" } } } };
const sandboxes: readonly Sandbox[] = [
  testSandbox("making"),
  { ...testSandbox("ready"), state: "ready", ips: [] },
  { ...testSandbox("owing"), state: "not-ready", ips: [] },
  { ...testSandbox("done"), state: "stopped", ips: [] },
  { ...testSandbox("hosts", hostNetwork), state: "ready", ips: [] },
];
const records = { all: () => sandboxes } as RecordStore<Sandbox>;
const unavailable = new CriError(Code.Unavailable, "cni plugin not initialized");

describe("collectNetworkGarbage", () => {
  it("names the attachments that are still owed", async () => {
    const network = createFakeNetwork();
    await collectNetworkGarbage({ network, sandboxes: records, log: silentLog }, new AbortController().signal);
    expect(network.journal).toEqual([`gc ${["making", "ready", "owing"].map(testId).join(" ")}`]);
  });

  it("tries again, less and less often, until there is a network", async () => {
    const network = createFakeNetwork();
    network.fail.collectGarbage = unavailable;
    const waits: number[] = [];
    const wait = async (ms: number): Promise<void> => {
      waits.push(ms);
      if (waits.length === 8) delete network.fail.collectGarbage;
    };
    const parts = { network, sandboxes: records, log: silentLog, wait };
    await collectNetworkGarbage(parts, new AbortController().signal);
    expect(waits).toEqual([1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
    expect(network.journal).toHaveLength(9);
  });

  it("ends with the daemon", async () => {
    const network = createFakeNetwork();
    network.fail.collectGarbage = unavailable;
    const closing = new AbortController();
    const collecting = collectNetworkGarbage({ network, sandboxes: records, log: silentLog }, closing.signal);
    closing.abort(new Error("shutting down"));
    await collecting;
    expect(network.journal).toHaveLength(1);
  });

  it("gives up, and says so, where a plugin fails", async () => {
    const network = createFakeNetwork();
    network.fail.collectGarbage = new CriError(Code.Internal, "bridge: no such device");
    const warn = vi.fn();
    const log = { ...silentLog, warn };
    await collectNetworkGarbage({ network, sandboxes: records, log }, new AbortController().signal);
    expect(network.journal).toHaveLength(1);
    expect(warn).toHaveBeenCalledTimes(1);
  });
});
