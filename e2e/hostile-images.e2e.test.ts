import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { Code } from "../cri-api/index.ts";
import { useDaemon } from "./harness/fixture.ts";
import { addImage, createLayout, pushImage } from "./harness/image-builder.ts";
import { layRootFilesystem, packLayer } from "./harness/root-filesystem.ts";
import { runCommand } from "./harness/run-command.ts";

let scratch: string;
let outside: string;
const berth = useDaemon({ pull: [] });

beforeAll(async () => {
  scratch = await mkdtemp(path.join(tmpdir(), "berth-hostile-images-"));
  outside = path.join(scratch, "outside");
  await mkdir(outside);
  await writeFile(path.join(outside, "secret"), "secret");
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

/** An archive of files named in `members`, under the names that `rename` (of sed) makes of them. */
async function pack(directory: string, members: readonly string[], rename: string): Promise<string> {
  const archive = `${directory}.tar`;
  const argv = ["tar", "-P", "--format=pax", "-C", directory, "--transform", rename, "-cf", archive, ...members];
  await runCommand(argv);
  return archive;
}

/** What tries to write `owned` to the folder outside, or to change the secret in it. */
const attacks: readonly (readonly [string, (directory: string) => Promise<string>])[] = [
  [
    "climbs out by ..",
    async (directory) => {
      await writeFile(path.join(directory, "owned"), "x");
      return pack(directory, ["owned"], `s,^owned,${"../".repeat(12)}${outside.slice(1)}/owned,`);
    },
  ],
  [
    "goes through a symbolic link",
    async (directory) => {
      await symlink(outside, path.join(directory, "link"));
      await writeFile(path.join(directory, "owned"), "x");
      return pack(directory, ["link", "owned"], "s,^owned,link/owned,");
    },
  ],
  [
    "swaps a folder for a link between two files",
    async (directory) => {
      await mkdir(path.join(directory, "folder"));
      await writeFile(path.join(directory, "folder/first"), "x");
      await symlink(outside, path.join(directory, "link"));
      await writeFile(path.join(directory, "owned"), "x");
      return pack(directory, ["folder/first", "link", "owned"], "s,^link$,folder,;s,^owned,folder/owned,");
    },
  ],
  [
    "links hard to a file outside",
    async (directory) => {
      await writeFile(path.join(directory, "first"), "x");
      await runCommand(["ln", path.join(directory, "first"), path.join(directory, "second")]);
      return pack(directory, ["first", "second"], `flags=h;s,^first,${outside}/secret,`);
    },
  ],
];

describe("an image whose layer", () => {
  test.each(attacks)("%s changes nothing outside its root, and leaves nothing when it is refused", async (_, make) => {
    const directory = await mkdtemp(path.join(scratch, "layer-"));
    const layout = await createLayout(`${directory}.oci`);
    await addImage(layout, "hostile", [await make(directory)], { cmd: ["true"] });
    const image = `${inject("registry")}/hostile/${path.basename(directory).toLowerCase()}:1`;
    await pushImage(layout, "hostile", image);

    const outcome: unknown = await berth.call("PullImage", { image: { image } }).catch((thrown: unknown) => thrown);
    if (outcome instanceof Error) expect(outcome).toMatchObject({ code: Code.DataLoss });
    else await berth.call("RemoveImage", { image: { image } });

    expect(await readdir(outside)).toEqual(["secret"]);
    expect(await readFile(path.join(outside, "secret"), "utf8")).toBe("secret");
    expect((await berth.call("ListImages")).images).toEqual([]);
    const { imageFilesystems } = await berth.call("ImageFsInfo");
    const used = imageFilesystems.map(({ inodesUsed }) => inodesUsed?.value);
    expect(used).toEqual([0n]);
  });

  test("brings a device opens nothing by it, neither in a container nor as a volume of one", async () => {
    const directory = await mkdtemp(path.join(scratch, "layer-"));
    await layRootFilesystem(directory);
    // The loop driver's control device: not one that every container may use, and opening it does nothing.
    await runCommand(["mknod", "-m", "0666", path.join(directory, "device"), "c", "10", "237"]);
    const layout = await createLayout(`${directory}.oci`);
    const layer = await packLayer(directory, `${directory}.tar`);
    await addImage(layout, "device", [layer], { cmd: ["sleep", "2147483647"], env: ["PATH=/bin"] });
    const image = { image: `${inject("registry")}/hostile/device:1` };
    await pushImage(layout, "device", image.image);
    await berth.call("PullImage", { image });

    const linux = { securityContext: { privileged: true } };
    const pod = await berth.runPod({ config: { linux } });
    const mounts = [{ containerPath: "/volume", image, readonly: true }];
    const containerId = await berth.startContainer(pod, { image, mounts });
    const open = (id: string, file: string): Promise<string> => berth.shell(id, `(: < ${file}) && echo opened`);
    await expect(open(containerId, "/device")).rejects.toThrow("Operation not permitted");
    await expect(open(containerId, "/volume/device")).rejects.toThrow("Permission denied");
    const privilegedId = await berth.startContainer(pod, { image, linux });
    expect(await open(privilegedId, "/device")).toBe("opened");
    await berth.removePod(pod.id);
    await berth.call("RemoveImage", { image });
  });
});
