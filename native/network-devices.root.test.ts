import { mkdir, mkdtemp, readFile, readlink, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { connectInNamespace, pinNamespaces, unpinNamespace } from "./namespaces.ts";
import { parseNetworkDevices, readInterfaceCounters } from "./network-devices.ts";
import { run } from "./run.ts";

let directory: string;
const signal = new AbortController().signal;
const pod = (name: string): string => join(directory, name);

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "berth-counters-"));
  for (const name of ["a", "b"]) {
    await mkdir(pod(name));
    await pinNamespaces({ directory: pod(name), kinds: ["net"] });
  }
});
afterEach(async () => {
  for (const name of ["a", "b"]) await unpinNamespace(join(pod(name), "net"));
  await rm(directory, { recursive: true });
});

test("each namespace's own interfaces are counted without a process inside", async () => {
  const [a, b] = [join(pod("a"), "net"), join(pod("b"), "net")];
  const addPair = ["/sbin/ip", "link", "add", "one", "type", "veth", "peer", "name", "two"];
  await run({ argv: ["/usr/bin/nsenter", `--net=${b}`, ...addPair], env: {}, signal });
  await expect(connectInNamespace(a, { host: "127.0.0.1", port: 9 }, { signal })).rejects.toMatchObject({
    code: "ECONNREFUSED",
  });
  const own = await readlink("/proc/self/ns/net");
  const names = parseNetworkDevices(await readFile("/proc/net/dev", "utf8")).map(({ name }) => name);

  const [first, absent, second] = await readInterfaceCounters([a, join(directory, "absent"), b]);

  expect(first?.map(({ name }) => name)).toEqual(["lo"]);
  expect(first?.[0]?.transmitted.packets).toBe(2n); // the SYN and its refusal
  expect(absent).toBeUndefined();
  expect(second?.map(({ name }) => name).toSorted()).toEqual(["lo", "one", "two"]);
  expect(second?.find(({ name }) => name === "lo")?.transmitted.packets).toBe(0n);
  expect(await readlink("/proc/self/ns/net")).toBe(own);
  expect(parseNetworkDevices(await readFile("/proc/net/dev", "utf8")).map(({ name }) => name)).toEqual(names);
});

test("what is no network namespace is not entered, and many are read in one go", async () => {
  const a = join(pod("a"), "net");
  const wanted = ["/etc/passwd", a, "/proc/self/ns/uts", ...Array.from({ length: 200 }, () => a)];
  const counters = await readInterfaceCounters(wanted);
  expect(counters.filter((each) => each === undefined)).toHaveLength(2);
  expect(counters.filter((each) => each?.length === 1)).toHaveLength(201);
  await expect(readInterfaceCounters([])).resolves.toEqual([]);
  await expect(readInterfaceCounters(["relative"])).rejects.toMatchObject({ code: "EINVAL" });
});
