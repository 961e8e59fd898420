import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { Code, type cri, type Init } from "../cri-api/index.ts";
import { containerConfig } from "./harness/configs.ts";
import { useDaemon } from "./harness/fixture.ts";
import { newerRuntimes, unpackNewerRuntimes } from "./harness/newer-runtimes.ts";
import { runCommand } from "./harness/run-command.ts";

beforeAll(unpackNewerRuntimes, 300_000);
const berth = useDaemon({
  runtimes: { crun: { path: "crun" }, runc: { path: "runc" }, "newer-crun": newerRuntimes.crun },
});

/** Writes a CDI file into the directory that the daemon's configuration names. */
async function writeCdi(name: string, text: string): Promise<void> {
  const directory = path.join(berth.workspace.directory, "cdi");
  await mkdir(directory, { recursive: true });
  await writeFile(path.join(directory, name), text);
}

const asked = (...names: readonly string[]): Init<cri.ContainerConfig> => ({
  CDIDevices: names.map((name) => ({ name })),
});

describe.each(["crun", "runc"])("with %s", (runtimeHandler) => {
  test("a device brings its nodes, mounts, variables, groups and hooks", async () => {
    const host = path.join(berth.workspace.directory, `vendor-${runtimeHandler}`);
    await mkdir(host, { recursive: true });
    await writeFile(path.join(host, "library"), "vendor's library\n");
    await runCommand(["mknod", path.join(host, "control"), "c", "10", "237"]);
    await writeFile(path.join(host, "hook"), `#!/bin/sh\necho "$1 $STAGE" >> ${host}/hooks\ncat > /dev/null\n`, {
      mode: 0o755,
    });
    const hook = (hookName: string): object => ({
      hookName,
      path: path.join(host, "hook"),
      args: ["hook", hookName],
      env: [`STAGE=of ${runtimeHandler}`],
    });
    await writeCdi(
      `${runtimeHandler}.json`,
      JSON.stringify({
        cdiVersion: "0.7.0",
        kind: `${runtimeHandler}.example/gpu`,
        containerEdits: {
          env: ["VENDOR=yes", "GIVEN=by the vendor"],
          mounts: [
            {
              hostPath: path.join(host, "library"),
              containerPath: "/usr/lib/vendor/library",
              options: ["ro", "bind", "nosuid"],
            },
          ],
          hooks: [hook("createRuntime"), hook("poststop")],
        },
        devices: [
          {
            name: "0",
            containerEdits: {
              env: ["DEVICE=0"],
              deviceNodes: [
                { path: "/dev/vendor0", hostPath: path.join(host, "control"), permissions: "rw", fileMode: 0o600 },
              ],
              additionalGids: [4242],
            },
          },
        ],
      }),
    );
    const pod = await berth.runPod({ runtimeHandler });
    const envs = [{ key: "GIVEN", value: Buffer.from("by the pod") }];
    const containerId = await berth.startContainer(pod, {
      ...asked(`${runtimeHandler}.example/gpu=0`),
      envs,
      linux: { securityContext: { runAsUser: { value: 1000n } } },
    });
    expect(await berth.shell(containerId, "echo $VENDOR $DEVICE $GIVEN")).toBe("yes 0 by the vendor");
    expect(await berth.shell(containerId, "cat /usr/lib/vendor/library")).toBe("vendor's library");
    await expect(berth.shell(containerId, "echo x > /usr/lib/vendor/library")).rejects.toThrow(/Read-only|denied/u);
    expect(await berth.shell(containerId, "stat -c '%F %t:%T %a %u' /dev/vendor0")).toBe(
      "character special file a:ed 600 1000",
    );
    expect(await berth.shell(containerId, ": < /dev/vendor0 && echo opened")).toBe("opened");
    expect((await berth.shell(containerId, "id -G")).split(" ")).toContain("4242");
    await berth.call("RemoveContainer", { containerId });
    const stages = (await readFile(path.join(host, "hooks"), "utf8")).trim().split("\n");
    expect(stages).toEqual([`createRuntime of ${runtimeHandler}`, `poststop of ${runtimeHandler}`]);
  });

  test("annotations name devices too, and YAML files are read as they are now", async () => {
    const kind = `${runtimeHandler}.example/net`;
    const file = (value: string): string =>
      `cdiVersion: "0.5.0"\nkind: ${kind}\ndevices:\n- name: one\n  containerEdits:\n    env: [ONE=${value}]\n- name: two\n  containerEdits:\n    env: ["TWO=2"]\n`;
    const pod = await berth.runPod({ runtimeHandler });
    const run = async (): Promise<readonly string[]> => {
      const annotations = { "cdi.k8s.io/plugin_device": `${kind}=one,${kind}=two` };
      return (await berth.runToEnd(pod, ["sh", "-c", "echo $ONE $TWO"], { annotations })).log;
    };
    await writeCdi(`${runtimeHandler}.yaml`, file("first"));
    expect(await run()).toEqual(["stdout first 2"]);
    await writeCdi(`${runtimeHandler}.yaml`, file("changed"));
    expect(await run()).toEqual(["stdout changed 2"]);
  });

  test("a device that nobody describes, or whose node is gone, is told by name and leaves nothing", async () => {
    const kind = `${runtimeHandler}.example/lost`;
    const node = { path: "/dev/berth-is-not-there" };
    const devices = [{ name: "gone", containerEdits: { deviceNodes: [node] } }];
    await writeCdi("lost.json", JSON.stringify({ cdiVersion: "0.6.0", kind, devices }));
    const pod = await berth.runPod({ runtimeHandler });
    const request = (name: string): Init<cri.CreateContainerRequest> => ({
      podSandboxId: pod.id,
      config: containerConfig("refused", berth.image("busybox"), asked(name)),
      sandboxConfig: pod.config,
    });
    const unknown = new RegExp(`^CDI device injection failed: unresolvable CDI devices ${kind}=none`, "u");
    await berth.expectFailure("CreateContainer", request(`${kind}=none`), Code.FailedPrecondition, unknown);
    const gone = /^CDI device injection failed: "\/dev\/berth-is-not-there" is not a device$/u;
    await berth.expectFailure("CreateContainer", request(`${kind}=gone`), Code.FailedPrecondition, gone);
    await rm(path.join(berth.workspace.directory, "cdi", "lost.json"));
  });
});

describe("network devices", () => {
  /** An interface of the daemon's network namespace, and the CDI device that moves it. */
  async function addInterface(name: string): Promise<string> {
    await runCommand(["ip", "link", "add", name, "type", "veth"]);
    onTestFinished(async () => void (await runCommand(["ip", "link", "delete", name]).catch(() => undefined))); // moved
    const netDevices = [{ hostInterfaceName: name, name: "net7" }];
    const devices = [{ name, containerEdits: { netDevices } }];
    await writeCdi(`${name}.json`, JSON.stringify({ cdiVersion: "1.1.0", kind: `${name}.example/nic`, devices }));
    return `${name}.example/nic=${name}`;
  }

  test("move into the pod under their new names, and are up", async () => {
    const device = await addInterface("berthnic0");
    const pod = await berth.runPod({ runtimeHandler: "newer-crun" });
    const containerId = await berth.startContainer(pod, asked(device));
    expect((await berth.shell(containerId, "ls /sys/class/net")).split(/\s+/u)).toContain("net7");
    expect(Number(await berth.shell(containerId, "cat /sys/class/net/net7/flags")) & 1).toBe(1); // IFF_UP
    await expect(runCommand(["ip", "link", "show", "berthnic0"])).rejects.toThrow(/does not exist/u);
  });

  test.each([
    [
      "whose runtime cannot move them",
      "crun",
      {},
      /^CDI .*: runtime handler "crun" cannot move network devices: berthnic1$/u,
    ],
    [
      "on the host's network",
      "newer-crun",
      { network: "NODE" },
      /^CDI .*: a pod on the host's network takes no network devices: berthnic1$/u,
    ],
  ] as const)("are refused to a pod %s, and stay where they are", async (_pod, runtimeHandler, modes, reason) => {
    const device = await addInterface("berthnic1");
    const config = { linux: { securityContext: { namespaceOptions: { pid: "CONTAINER" as const, ...modes } } } };
    const pod = await berth.runPod({ runtimeHandler, config });
    const request = {
      podSandboxId: pod.id,
      config: containerConfig("refused", berth.image("busybox"), asked(device)),
      sandboxConfig: pod.config,
    };
    await berth.expectFailure("CreateContainer", request, Code.FailedPrecondition, reason);
    await runCommand(["ip", "link", "show", "berthnic1"]);
  });
});
