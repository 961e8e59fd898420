import { describe, expect, inject, test } from "vitest";
import { Code, CriError, loadServices, type MethodDescriptor } from "../cri-api/index.ts";
import { containerConfig, podConfig } from "./harness/configs.ts";
import { openStream } from "./harness/cri-stream.ts";
import { useDaemon } from "./harness/fixture.ts";

const berth = useDaemon();

const absent = "0123456789abcdef".repeat(4);

describe("an unknown id", () => {
  test("of a pod is NotFound", async () => {
    await berth.expectFailure("PodSandboxStatus", { podSandboxId: absent }, Code.NotFound, absent);
    const config = containerConfig("c", berth.image("busybox"));
    const request = { podSandboxId: absent, config, sandboxConfig: podConfig(berth.workspace, "none") };
    await berth.expectFailure("CreateContainer", request, Code.NotFound, absent);
  });
  test("of a container is NotFound", async () => {
    const containerId = absent;
    await berth.expectFailure("StartContainer", { containerId }, Code.NotFound, absent);
    await berth.expectFailure("ContainerStatus", { containerId }, Code.NotFound, absent);
    await berth.expectFailure("ContainerStats", { containerId }, Code.NotFound, absent);
    await berth.expectFailure("ExecSync", { containerId, cmd: ["true"] }, Code.NotFound, absent);
    await berth.expectFailure("ReopenContainerLog", { containerId }, Code.NotFound, absent);
    await berth.expectFailure("UpdateContainerResources", { containerId, linux: {} }, Code.NotFound, absent);
  });
  test("that is empty is InvalidArgument", async () => {
    await berth.expectFailure("PodSandboxStatus", { podSandboxId: "" }, Code.InvalidArgument, /id/iu);
    await berth.expectFailure("StartContainer", { containerId: "" }, Code.InvalidArgument, /id/iu);
  });
});

describe("an incomplete request", () => {
  test("RunPodSandbox without a config, metadata, name, namespace or uid is InvalidArgument", async () => {
    const good = podConfig(berth.workspace, "bad");
    await berth.expectFailure("RunPodSandbox", {}, Code.InvalidArgument, /config/u);
    await berth.expectFailure(
      "RunPodSandbox",
      { config: { ...good, metadata: null } },
      Code.InvalidArgument,
      /metadata/u,
    );
    for (const field of ["name", "namespace", "uid"]) {
      const config = { ...good, metadata: { ...good.metadata, [field]: "" } };
      await berth.expectFailure("RunPodSandbox", { config }, Code.InvalidArgument, field);
    }
  });
  test("CreateContainer without a config, metadata, name or image is InvalidArgument", async () => {
    const pod = await berth.runPod();
    const base = { podSandboxId: pod.id, sandboxConfig: pod.config };
    const good = containerConfig("c", berth.image("busybox"));
    await berth.expectFailure("CreateContainer", base, Code.InvalidArgument, /config/u);
    const bad = [{ metadata: null }, { metadata: { name: "" } }, { image: null }, { image: { image: "" } }];
    for (const change of bad) {
      const request = { ...base, config: { ...good, ...change } };
      await berth.expectFailure("CreateContainer", request, Code.InvalidArgument, /metadata|name|image/u);
    }
  });
  test("ExecSync without a command is InvalidArgument", async () => {
    const containerId = await berth.startContainer(await berth.runPod());
    await berth.expectFailure("ExecSync", { containerId }, Code.InvalidArgument, /cmd|command/u);
  });
});

describe("an image", () => {
  test.each(["lower/UPPER", "a//b", "name:tag:tag", "-leading", "x@sha256:123", "https://host/name", " "])(
    "with the malformed reference %o is InvalidArgument",
    async (image) => {
      await berth.expectFailure("PullImage", { image: { image } }, Code.InvalidArgument, image.trim());
    },
  );
  test("that is not there cannot make a container", async () => {
    const pod = await berth.runPod();
    const config = containerConfig("c", `${inject("registry")}/berth/none:1`);
    const request = { podSandboxId: pod.id, config, sandboxConfig: pod.config };
    await berth.expectFailure("CreateContainer", request, Code.NotFound, "berth/none:1");
  });
  test("whose command does not exist fails to start or create, and says which", async () => {
    const pod = await berth.runPod();
    const config = containerConfig("c", berth.image("busybox"), { command: ["/no/such/program"] });
    const { containerId } = await berth
      .call("CreateContainer", { podSandboxId: pod.id, config, sandboxConfig: pod.config })
      .catch((thrown: unknown) => {
        expect(String(thrown)).toContain("/no/such/program");
        return { containerId: "" };
      });
    if (containerId !== "") {
      await expect(berth.call("StartContainer", { containerId })).rejects.toThrow("/no/such/program");
    }
  });
});

describe("a pod", () => {
  const refuse = (change: object, code: Code, text: RegExp, runtimeHandler = ""): Promise<void> => {
    const config = { ...podConfig(berth.workspace, "refused"), ...change };
    return berth.expectFailure("RunPodSandbox", { config, runtimeHandler }, code, text);
  };
  test("with an unknown runtime handler is refused", () => refuse({}, Code.InvalidArgument, /nosuch/u, "nosuch"));
  test("with a log directory that is not absolute is refused", () =>
    refuse({ logDirectory: "relative" }, Code.InvalidArgument, /log/u));
  test("with a sysctl outside the allowed names is refused", () =>
    refuse(
      { linux: { sysctls: { "kernel.core_pattern": "|/bin/sh" } } },
      Code.InvalidArgument,
      /kernel\.core_pattern/u,
    ));
  test("with a sysctl that climbs out of /proc/sys is refused", () =>
    refuse({ linux: { sysctls: { "net.../../etc": "1" } } }, Code.InvalidArgument, /sysctl/u));
  test("with a network sysctl and the host's network is refused", () =>
    refuse(
      {
        linux: {
          sysctls: { "net.ipv4.ip_forward": "1" },
          securityContext: { namespaceOptions: { network: "NODE" } },
        },
      },
      Code.InvalidArgument,
      /net\.ipv4\.ip_forward/u,
    ));
  test("with a host name that is none is refused", () =>
    refuse({ hostname: "a\nb" }, Code.InvalidArgument, /host ?name/iu));
});

describe("a container", () => {
  const refuse = async (change: object, code: Code, text: RegExp): Promise<void> => {
    const pod = await berth.runPod();
    const config = containerConfig("refused", berth.image("busybox"), change);
    const request = { podSandboxId: pod.id, config, sandboxConfig: pod.config };
    await berth.expectFailure("CreateContainer", request, code, text);
    expect((await berth.call("ListContainers", { filter: { podSandboxId: pod.id } })).containers).toEqual([]);
  };
  const security = (securityContext: object): object => ({ linux: { securityContext } });

  test("that is privileged in an unprivileged pod is refused", () =>
    refuse(security({ privileged: true }), Code.InvalidArgument, /privileged/u));
  test("with a group and no user is refused", () =>
    refuse(security({ runAsGroup: { value: 5n } }), Code.InvalidArgument, /group/iu));
  test("with an unknown user is refused", () =>
    refuse(security({ runAsUsername: "nosuchuser" }), Code.InvalidArgument, /nosuchuser/u));
  test("with an unknown capability is refused", () =>
    refuse(security({ capabilities: { addCapabilities: ["NO_SUCH"] } }), Code.InvalidArgument, /NO_SUCH/u));
  test("with a Localhost seccomp profile that is not there is refused", () => {
    const seccomp = { profileType: "Localhost" as const, localhostRef: "/no/such/profile.json" };
    return refuse(security({ seccomp }), Code.InvalidArgument, /seccomp/iu);
  });
  test("with a log path that leaves the log directory is refused", () =>
    refuse({ logPath: "../../outside.log" }, Code.InvalidArgument, /log/iu));
  test("with a mount at a relative place is refused", () =>
    refuse({ mounts: [{ hostPath: "/tmp", containerPath: "" }] }, Code.InvalidArgument, /mount|path/iu));
  test("with an environment variable without a name is refused or dropped", async () => {
    const pod = await berth.runPod();
    const envs = [{ key: "A=B", value: Buffer.from("1") }];
    const config = containerConfig("env", berth.image("busybox"), { envs });
    const request = { podSandboxId: pod.id, config, sandboxConfig: pod.config };
    await berth.expectFailure("CreateContainer", request, Code.InvalidArgument, /A=B|env/u);
  });
});

describe("the wrong state", () => {
  test("starting a running or an exited container is FailedPrecondition", async () => {
    const containerId = await berth.startContainer(await berth.runPod());
    await berth.expectFailure("StartContainer", { containerId }, Code.FailedPrecondition, containerId);
    await berth.call("StopContainer", { containerId, timeout: 5n });
    await berth.expectFailure("StartContainer", { containerId }, Code.FailedPrecondition, containerId);
  });
  test("running a command in a container that does not run is FailedPrecondition", async () => {
    const containerId = await berth.createContainer(await berth.runPod());
    await berth.expectFailure("ExecSync", { containerId, cmd: ["true"] }, Code.FailedPrecondition, containerId);
  });
  test("creating a container in a stopped pod is FailedPrecondition", async () => {
    const pod = await berth.runPod();
    await berth.call("StopPodSandbox", { podSandboxId: pod.id });
    const config = containerConfig("late", berth.image("busybox"));
    const request = { podSandboxId: pod.id, config, sandboxConfig: pod.config };
    await berth.expectFailure("CreateContainer", request, Code.FailedPrecondition, pod.id);
  });
});

test("of all RPCs of the contract only checkpoint and restore are Unimplemented", async () => {
  const contract = loadServices().filter(({ path: place }) => place.startsWith("/runtime.v1."));
  expect(contract).toHaveLength(43);
  const answers = await Promise.all(contract.map(async (method) => [method.name, await codeOf(method)] as const));
  const unbuilt = answers.filter(([, code]) => code === Code.Unimplemented).map(([name]) => name);
  expect(unbuilt.toSorted()).toEqual(["CheckpointContainer", "CheckpointPod", "RestorePod"]);
  await berth.expectFailure("CheckpointContainer", { containerId: absent }, Code.Unimplemented, /CheckpointContainer/u);
});

/** What an empty request is answered with; undefined for an answer, or a stream that stands. */
async function codeOf({ name, responseStream }: MethodDescriptor): Promise<number | undefined> {
  if (!responseStream) {
    return await berth.call(name).then(
      () => undefined,
      (thrown: unknown) => (thrown instanceof CriError ? thrown.code : Promise.reject(thrown)),
    );
  }
  using open = openStream(berth.daemon.socketPath, name);
  const { promise: failed, resolve } = Promise.withResolvers<number>();
  open.stream.on("error", ({ code }: { code: number }) => resolve(code));
  open.stream.resume();
  return await Promise.race([open.isOpen.then(() => undefined), failed]);
}
