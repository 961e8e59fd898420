import { mkdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { beforeAll, describe, expect, inject, test } from "vitest";
import { Code, type cri, type Init } from "../cri-api/index.ts";
import { containerConfig, podConfig } from "./harness/configs.ts";
import { useDaemon } from "./harness/fixture.ts";
import { addImage, createLayout, pushImage } from "./harness/image-builder.ts";
import { packLayer } from "./harness/root-filesystem.ts";
import { waitUntil } from "./harness/wait-until.ts";

const berth = useDaemon();

/** An image of programs that cannot run here, without any that can. */
let broken: string;
beforeAll(async () => {
  const directory = path.join(berth.workspace.directory, "broken");
  await mkdir(path.join(directory, "root/etc"), { recursive: true });
  const foreign = Buffer.alloc(128);
  foreign.write("\x7fELF\x02\x01\x01", 0, "latin1");
  foreign.writeUInt16LE(2, 16);
  foreign.writeUInt16LE(process.arch === "arm64" ? 62 : 183, 18);
  const write = (name: string, content: string | Buffer, mode = 0o755): Promise<void> =>
    writeFile(path.join(directory, "root", name), content, { mode });
  await write("script", "#!/usr/bin/python3\n");
  await write("foreign", foreign);
  await write("text", "no interpreter line\n");
  await write("plain", "not executable\n", 0o644);
  const layout = await createLayout(path.join(directory, "oci"));
  await addImage(layout, "broken", [await packLayer(path.join(directory, "root"), path.join(directory, "layer.tar"))]);
  broken = `${inject("registry")}/berth/broken:1`;
  await pushImage(layout, "broken", broken);
  await berth.call("PullImage", { image: { image: broken } });
}, 120_000);

describe.each(["crun", "runc"])("with %s", (runtimeHandler) => {
  const inImage = (command: readonly string[]): Init<cri.ContainerConfig> => ({ image: { image: broken }, command });

  async function expectRefusal(config: Init<cri.ContainerConfig>, code: Code, text: RegExp): Promise<void> {
    const pod = await berth.runPod({ runtimeHandler });
    const asked = containerConfig("refused", berth.image("busybox"), config);
    const request = { podSandboxId: pod.id, config: asked, sandboxConfig: pod.config };
    await berth.expectFailure("CreateContainer", request, code, text);
  }
  /** Runs a container to its end and waits until its message says so much. */
  async function end(config: Init<cri.ContainerConfig>, text: RegExp): Promise<cri.ContainerStatus> {
    const pod = await berth.runPod({ runtimeHandler });
    const containerId = await berth.startContainer(pod, config);
    await berth.waitForExit(containerId);
    const status = await waitUntil(`a message like ${text}`, async () => {
      const found = await berth.containerStatus(containerId);
      return text.test(found.message) ? found : undefined;
    });
    for (const secret of [berth.workspace.root, berth.workspace.state]) expect(status.message).not.toContain(secret);
    return status;
  }

  test("a command that the image lacks is named with the image", async () => {
    const text = /: executable "\/no\/such" not found in image ".*\/berth\/broken:1"$/u;
    await expectRefusal(inImage(["/no/such"]), Code.InvalidArgument, text);
    await expectRefusal(inImage(["nope"]), Code.InvalidArgument, /executable "nope" not found in image/u);
    await expectRefusal(
      inImage(["/plain"]),
      Code.InvalidArgument,
      /"\/plain" in image ".*" cannot be executed: permission denied$/u,
    );
  });

  test("a missing interpreter is named", async () => {
    const status = await end(inImage(["/script"]), /interpreter/u);
    expect(status.message).toMatch(
      /^executable "\/script" in image ".*broken:1" cannot be executed: its interpreter "\/usr\/bin\/python3" is missing$/u,
    );
    expect(status).toMatchObject({ reason: "Error", exitCode: 1 });
  });

  test("a program for another machine is told as such", async () => {
    const status = await end(inImage(["/foreign"]), /exec format error/u);
    expect(status.message).toMatch(/it is a program for (?:arm64|amd64), and this node is (?:amd64|arm64)$/u);
    await end(inImage(["/text"]), /exec format error: it is neither a program nor a script/u);
  });

  test("an OOM kill names the process that was killed and the limit", async () => {
    const resources = { memoryLimitInBytes: 15n << 20n, memorySwapLimitInBytes: 15n << 20n };
    const command = ["sh", "-c", "dd if=/dev/zero of=/dev/null bs=64M count=1; exit 137"];
    const status = await end({ command, linux: { resources } }, /process "dd" was killed/u);
    expect(status).toMatchObject({ reason: "OOMKilled", exitCode: 137 });
    expect(status.message).toBe('process "dd" was killed for want of memory; the container\'s limit is 15728640 bytes');
  });

  test("a memory limit that nothing can start under is named", () =>
    expectRefusal(
      { linux: { resources: { memoryLimitInBytes: 16_384n } } },
      Code.InvalidArgument,
      /: its memory limit of 16384 bytes is too low for it to start$/u,
    ));

  test("the last words of a container that dies at once are told", async () => {
    const status = await end({ command: ["sh", "-c", "echo cannot read web.conf >&2; exit 3"] }, /./u);
    expect(status).toMatchObject({ reason: "Error", exitCode: 3, message: "cannot read web.conf" });
  });

  test("a container whose start fails tells why, as StartError", async () => {
    const pod = await berth.runPod({ runtimeHandler });
    const containerId = await berth.createContainer(pod);
    // The gate that the container's first process waits at, taken away under the runtime.
    await rm(path.join(berth.workspace.state, "runtimes", runtimeHandler, "root", containerId, "exec.fifo"));
    const thrown: unknown = await berth.call("StartContainer", { containerId }).catch((error: unknown) => error);
    expect(thrown).toMatchObject({ code: Code.FailedPrecondition });
    const status = await berth.waitForExit(containerId);
    expect(status).toMatchObject({ reason: "StartError", exitCode: 128, message: (thrown as Error).message });
    expect(status.message).not.toContain(berth.workspace.state);
  });

  test("an exec names what is missing, and where", async () => {
    const containerId = await berth.startContainer(await berth.runPod({ runtimeHandler }));
    const text = /: executable "nope" not found in image ".*\/berth\/busybox:1"$/u;
    await berth.expectFailure("ExecSync", { containerId, cmd: ["nope"] }, Code.InvalidArgument, text);
  });

  test("limits that this node has not are told by name", () =>
    expectRefusal({ linux: { resources: { cpusetCpus: "900" } } }, Code.InvalidArgument, /cpuset\.cpus/u));
});

test("a pull tells what each host answered", async () => {
  const image = `${inject("registry")}/berth/none:1`;
  await berth.expectFailure(
    "PullImage",
    { image: { image } },
    Code.NotFound,
    new RegExp(`host "${inject("registry")}": .*404`, "u"),
  );
});

test("a CNI plugin that fails is named with its words", async () => {
  const file = path.join(berth.workspace.cniConfDir, "00-broken.conflist"); // before the one that works
  const bridge = "a-name-too-long-for-a-link";
  const plugins = [{ type: "bridge", bridge, ipam: { type: "host-local", subnet: "10.99.0.0/24" } }];
  /** The error of RunPodSandbox, or undefined where it works. */
  const tryPod = async (): Promise<string | undefined> => {
    const config = podConfig(berth.workspace, "broken-network");
    const answer = await berth.call("RunPodSandbox", { config }).catch((error: unknown) => String(error));
    if (typeof answer === "string") return answer;
    await berth.removePod(answer.podSandboxId);
    return undefined;
  };
  await writeFile(file, JSON.stringify({ cniVersion: "1.0.0", name: "broken", plugins }));
  try {
    const failure = await waitUntil("the broken network to be taken", tryPod);
    expect(failure).toMatch(/cni plugin "bridge"/iu);
    expect(failure).toContain(bridge);
  } finally {
    await rm(file);
    await waitUntil("the network to be whole again", async () => ((await tryPod()) === undefined ? true : undefined));
  }
});
