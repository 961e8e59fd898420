import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { useDaemon } from "./harness/fixture.ts";
import { webPage } from "./harness/test-images.ts";

const page = webPage.trimEnd();

describe("image_volumes = mkdir", () => {
  const berth = useDaemon({ pull: ["volumes"] });

  test("a declared volume that the image lacks is a directory of its root filesystem", async () => {
    const image = { image: berth.image("volumes") };
    const containerId = await berth.startContainer(await berth.runPod(), { image });
    expect(
      await berth.shell(containerId, "cat /www/index.html; stat -c %a:%u /absent/deep; touch /absent/deep/x"),
    ).toBe(`${page}\n755:0`);
    expect(await berth.shell(containerId, "grep -c -e /www -e /absent /proc/self/mounts || true")).toBe("0");
  });
});

describe.each(["crun", "runc"])("image_volumes = bind, with %s", (runtimeHandler) => {
  const berth = useDaemon({ pull: ["volumes"], prepare: async () => ({ config: { image_volumes: "bind" } }) });

  async function volumesOnDisk(containerId: string): Promise<readonly string[]> {
    return await readdir(join(berth.workspace.root, "containers", containerId, "declared-volumes")).catch(() => []);
  }

  test("each container has directories of its own, filled from the image, that go with it", async () => {
    const image = { image: berth.image("volumes") };
    const pod = await berth.runPod({ runtimeHandler });
    const [one, two] = [await berth.startContainer(pod, { image }), await berth.startContainer(pod, { image })];
    expect(await berth.shell(one, "cat /www/index.html; echo changed > /www/index.html; touch /absent/deep/x")).toBe(
      page,
    );
    expect(await berth.shell(two, "cat /www/index.html; ls /absent/deep")).toBe(page);
    expect(
      await berth.shell(one, "cat /www/index.html; grep -c -e ' /www ' -e ' /absent/deep ' /proc/self/mounts"),
    ).toBe("changed\n2");
    expect(await volumesOnDisk(one)).toHaveLength(2);
    await berth.daemon.stop("SIGKILL");
    await berth.daemon.start();
    expect(await berth.shell(one, "cat /www/index.html")).toBe("changed");
    await berth.call("RemoveContainer", { containerId: one });
    expect(await volumesOnDisk(one)).toEqual([]);
    expect(await volumesOnDisk(two)).toHaveLength(2);
  });

  test("a mount takes the place of a volume", async () => {
    const image = { image: berth.image("volumes") };
    const mounts = [{ containerPath: "/www/", hostPath: berth.workspace.directory }];
    const containerId = await berth.startContainer(await berth.runPod({ runtimeHandler }), { image, mounts });
    expect(await volumesOnDisk(containerId)).toHaveLength(1);
    await expect(berth.shell(containerId, "cat /www/index.html")).rejects.toThrow(/No such file/u);
  });
});
