import { readFile, readlink } from "node:fs/promises";
import { hostname } from "node:os";
import { describe, expect, test } from "vitest";
import type { cri, Init } from "../cri-api/index.ts";
import { useDaemon } from "./harness/fixture.ts";

const berth = useDaemon();

/** Runs a shell script in the only container of a pod with the given config. */
async function inPod(config: Init<cri.PodSandboxConfig>, script: string, runtimeHandler: string): Promise<string> {
  const pod = await berth.runPod({ config, runtimeHandler });
  const linux = {
    securityContext: { namespaceOptions: config.linux?.securityContext?.namespaceOptions ?? { pid: "CONTAINER" } },
  };
  const containerId = await berth.startContainer(pod, { linux });
  const text = await berth.shell(containerId, script);
  await berth.removePod(pod.id);
  return text;
}

const withNamespaces = (namespaceOptions: Init<cri.NamespaceOption>): Init<cri.PodSandboxConfig> => ({
  linux: { securityContext: { namespaceOptions } },
});

describe.each(["crun", "runc"])("with %s", (runtimeHandler) => {
  const run = (config: Init<cri.PodSandboxConfig>, script: string): Promise<string> =>
    inPod(config, script, runtimeHandler);

  test("the name servers, search list and options of the pod are written", async () => {
    const dnsConfig = { servers: ["10.9.8.7", "10.9.8.6"], searches: ["a.example", "b.example"], options: ["ndots:5"] };
    expect(await run({ dnsConfig }, "cat /etc/resolv.conf")).toBe(
      "search a.example b.example\nnameserver 10.9.8.7\nnameserver 10.9.8.6\noptions ndots:5",
    );
  });
  test("the host's name servers are taken when the pod has none", async () => {
    expect(await run({}, "cat /etc/resolv.conf")).toBe((await readFile("/etc/resolv.conf", "utf8")).trimEnd());
  });
  test("the host name is the pod's, in the kernel, in /etc/hostname and in the environment", async () => {
    expect(await run({ hostname: "own-name" }, "hostname; cat /etc/hostname; echo $HOSTNAME")).toBe(
      "own-name\nown-name\nown-name",
    );
  });
  test("sysctls of the pod's own namespaces are set before anything runs", async () => {
    const sysctls = { "kernel.shm_rmid_forced": "1", "net.ipv4.ip_local_port_range": "1024 65000" };
    const script = "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_local_port_range";
    expect((await run({ linux: { sysctls } }, script)).replaceAll("\t", " ")).toBe("1\n1024 65000");
  });
  test("/dev/shm is a file system of the pod's own", async () => {
    expect(
      await run(
        {},
        "grep ' /dev/shm ' /proc/mounts | cut -d ' ' -f 3; df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2",
      ),
    ).toBe("tmpfs\n65536");
  });
  test("loopback is up in the pod's own network", async () => {
    expect(await run({}, "ip addr show lo")).toMatch(/LOOPBACK,UP[\s\S]*127\.0\.0\.1/u);
  });

  test("the host's network, processes and IPC are shared when asked for", async () => {
    const network = await run(
      withNamespaces({ network: "NODE", pid: "CONTAINER" }),
      "readlink /proc/self/ns/net; hostname",
    );
    expect(network).toBe(`${await readlink("/proc/self/ns/net")}\n${hostname()}`);
    const pid = await run(withNamespaces({ pid: "NODE" }), "readlink /proc/self/ns/pid");
    expect(pid).toBe(await readlink("/proc/self/ns/pid"));
    const ipc = await run(withNamespaces({ ipc: "NODE", pid: "CONTAINER" }), "readlink /proc/self/ns/ipc");
    expect(ipc).toBe(await readlink("/proc/self/ns/ipc"));
  });
  test("a pod on the host's network has no address of its own", async () => {
    const pod = await berth.runPod({ config: withNamespaces({ network: "NODE", pid: "CONTAINER" }), runtimeHandler });
    const { status } = await berth.call("PodSandboxStatus", { podSandboxId: pod.id });
    expect(status?.network?.ip ?? "").toBe("");
    expect(status?.linux?.namespaces?.options?.network).toBe("NODE");
  });
  test("its own namespaces are not the host's", async () => {
    const names = ["net", "pid", "ipc", "uts", "mnt"];
    const inside = await run({}, `for n in ${names.join(" ")}; do readlink /proc/self/ns/$n; done`);
    const outside = await Promise.all(names.map((name) => readlink(`/proc/self/ns/${name}`)));
    for (const [index, namespace] of inside.split("\n").entries()) expect(namespace).not.toBe(outside[index]);
  });
  test("the pod's containers live under its cgroup parent", async () => {
    const pod = await berth.runPod({ runtimeHandler });
    const containerId = await berth.startContainer(pod);
    const { info } = await berth.call("ContainerStatus", { containerId, verbose: true });
    const { pid } = JSON.parse(info["info"] ?? "{}") as { pid: number };
    const groups = (await readFile(`/proc/${pid}/cgroup`, "utf8")).trim().split("\n");
    const memory = groups.find((line) => line.split(":")[1] === "memory");
    expect(memory?.split(":")[2]).toMatch(new RegExp(`^${berth.workspace.cgroupParent}/.*${containerId}`, "u"));
  });
});

test("a pod without a cgroup parent runs too", async () => {
  const pod = await berth.runPod({ config: { linux: { cgroupParent: "" } } });
  const { log } = await berth.runToEnd(pod, ["echo", "ran"]);
  expect(log).toEqual(["stdout ran"]);
});

test("many pods at once get addresses of their own and all go again", async () => {
  const before = await berth.findTraces();
  const pods = await Promise.all(Array.from({ length: 8 }, () => berth.runPod()));
  const containers = await Promise.all(pods.map((pod) => berth.startContainer(pod)));
  const statuses = await Promise.all(pods.map((pod) => berth.call("PodSandboxStatus", { podSandboxId: pod.id })));
  expect(new Set(statuses.map(({ status }) => status?.network?.ip)).size).toBe(8);
  const names = await Promise.all(containers.map((containerId) => berth.shell(containerId, "hostname")));
  expect(names).toEqual(pods.map((pod) => pod.config.hostname));
  await Promise.all(pods.map((pod) => berth.removePod(pod.id)));
  await berth.expectNothingNew(before);
});
