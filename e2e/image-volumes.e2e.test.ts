import { describe, expect, test } from "vitest";
import { Code, type cri, type Init } from "../cri-api/index.ts";
import { containerConfig } from "./harness/configs.ts";
import { useDaemon } from "./harness/fixture.ts";

const berth = useDaemon({ pull: ["busybox", "layers", "artifact"] });

const volume = (name: Parameters<typeof berth.image>[0], imageSubPath = ""): Init<cri.Mount> => ({
  containerPath: "/volume",
  image: { image: berth.image(name) },
  imageSubPath,
  readonly: true,
});

describe.each(["crun", "runc"])("with %s", (runtimeHandler) => {
  async function start(...mounts: readonly Init<cri.Mount>[]): Promise<string> {
    return await berth.startContainer(await berth.runPod({ runtimeHandler }), { mounts });
  }
  /** Expects CreateContainer to fail, and nothing of it to be left. */
  async function expectRefusal(mount: Init<cri.Mount>, code: Code, text: RegExp): Promise<void> {
    const pod = await berth.runPod({ runtimeHandler });
    const config = containerConfig("refused", berth.image("busybox"), { mounts: [mount] });
    const request = { podSandboxId: pod.id, config, sandboxConfig: pod.config };
    await berth.expectFailure("CreateContainer", request, code, text);
  }

  test("an image is seen as one tree that can be neither written, nor run, nor gain rights", async () => {
    const containerId = await start(volume("layers"));
    const list = await berth.shell(containerId, "cd /volume/odd; ls; cat kept opaque/new; ls opaque");
    expect(list.split("\n")).toEqual(
      expect.arrayContaining(["kept", "hard-link", "opaque", "owned", "setuid", "symlink", "new"]),
    );
    expect(list).not.toMatch(/deleted|old/u);
    const options = await berth.shell(containerId, "grep ' /volume ' /proc/self/mounts | cut -d ' ' -f 4");
    expect(options.split(",")).toEqual(expect.arrayContaining(["ro", "nosuid", "nodev", "noexec"]));
    await expect(berth.shell(containerId, "touch /volume/x")).rejects.toThrow(/Read-only file system/u);
    await expect(berth.shell(containerId, "/volume/bin/echo ran")).rejects.toThrow(/Permission denied/u);
    expect(await berth.shell(containerId, "stat -c %u:%g /volume/odd/owned")).toBe("70000:70001");
  });

  test("an artifact is seen as its files", async () => {
    const containerId = await start(volume("artifact"));
    expect(await berth.shell(containerId, "cd /volume; find . -type f | sort; cat model/weights.bin")).toBe(
      "./model/run.sh\n./model/weights.bin\n./readme.txt\n1 2 3",
    );
    await expect(berth.shell(containerId, "sh -c /volume/model/run.sh")).rejects.toThrow(/Permission denied/u);
  });

  test("a sub-path shows a folder or a file of it, through links that stay inside", async () => {
    const containerId = await start(
      volume("artifact", "model"),
      { ...volume("artifact", "readme.txt"), containerPath: "/readme" },
      { ...volume("layers", "odd/symlink"), containerPath: "/their-passwd" }, // leads to ../../../etc/passwd
    );
    expect(await berth.shell(containerId, "ls /volume; cat /readme")).toBe("run.sh\nweights.bin\nread me");
    expect(await berth.shell(containerId, "head -n 1 /their-passwd")).toBe("root:x:0:0:root:/root:/bin/sh");
  });

  test("what cannot be mounted is told in the words that users know, and leaves nothing", async () => {
    const missing =
      /^ImageVolumeMountFailed: sub path "none\/x" does not exist in OCI artifact volume ".*artifact:1"$/u;
    await expectRefusal(volume("artifact", "none/x"), Code.InvalidArgument, missing);
    await expectRefusal(volume("layers", "odd/deleted"), Code.InvalidArgument, /does not exist in image volume/u);
    await expectRefusal(volume("web"), Code.NotFound, /^ImageVolumeMountFailed: image ".*" not found$/u);
    await expectRefusal(volume("layers", "../.."), Code.InvalidArgument, /leads out of the image/u);
  });

  test("an image in use can be removed, and the container keeps it, also over a restart of the daemon", async () => {
    await berth.call("PullImage", { image: { image: berth.image("zstd") } });
    await berth.call("PullImage", { image: { image: berth.image("artifact") } });
    const containerId = await start(volume("zstd"), { ...volume("artifact"), containerPath: "/files" });
    await berth.call("RemoveImage", { image: { image: berth.image("artifact") } });
    await berth.daemon.stop("SIGKILL");
    await berth.daemon.start();
    expect(await berth.shell(containerId, "cat /files/readme.txt; cat /volume/www/index.html")).toMatch(
      /read me\n<h1>/u,
    );
    const { mounts } = await berth.containerStatus(containerId);
    expect(mounts.map(({ image }) => image?.image)).toEqual([berth.image("zstd"), berth.image("artifact")]);
    await berth.call("PullImage", { image: { image: berth.image("artifact") } });
  });

  test("an artifact is no image to run", async () => {
    const pod = await berth.runPod({ runtimeHandler });
    const config = containerConfig("artifact", berth.image("artifact"));
    const request = { podSandboxId: pod.id, config, sandboxConfig: pod.config };
    await berth.expectFailure(
      "CreateContainer",
      request,
      Code.InvalidArgument,
      /is an artifact, which can only be a volume/u,
    );
  });
});
