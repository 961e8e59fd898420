import { Code, CriError, type cri } from "../../cri-api/index.ts";
import type { Invocation } from "./command.ts";
import { parseAge } from "./options.ts";
import { formatBytes, formatJson, write } from "./output.ts";

/** @throws {CriError} `NotFound`: the daemon takes an absent image for removed, a person has mistyped. */
export async function removeImages({ client, names, terminal }: Invocation): Promise<void> {
  for (const name of names) {
    const { image } = await client.call("ImageStatus", { image: { image: name } });
    if (image === null) throw new CriError(Code.NotFound, `image "${name}" not found`);
    await client.call("RemoveImage", { image: { image: image.id } });
    await write(terminal.out, [...image.repoTags, image.id].map((gone) => `removed ${gone}\n`).join(""));
  }
}

/** When the image came by its youngest name, in milliseconds of the epoch. */
async function pulledAtMs({ client }: Invocation, image: cri.Image): Promise<number> {
  const { info } = await client.call("ImageStatus", { image: { image: image.id }, verbose: true });
  const { names } = JSON.parse(info["info"] ?? '{"names":[]}') as { names: { pulledAtMs: number }[] };
  return Math.max(0, ...names.map((name) => name.pulledAtMs));
}

/** Ids of the images that containers run or have as volumes. */
async function usedImageIds({ client }: Invocation): Promise<ReadonlySet<string>> {
  const { containers } = await client.call("ListContainers", {});
  const used = new Set<string>();
  for (const { id, imageId } of containers) {
    used.add(imageId);
    const { status } = await client.call("ContainerStatus", { containerId: id }).catch(ignoreAbsence);
    for (const { image } of status?.mounts ?? []) {
      if (image === null) continue;
      const found = await client.call("ImageStatus", { image });
      if (found.image !== null) used.add(found.image.id);
    }
  }
  return used;
}

/** A container that went since it was listed uses nothing. */
function ignoreAbsence(thrown: unknown): Pick<cri.ContainerStatusResponse, "status"> {
  if (thrown instanceof CriError && thrown.code === Code.NotFound) return { status: null };
  throw thrown;
}

/** Removes what no container uses, running or not, and nobody has pinned. */
export async function pruneImages(invocation: Invocation): Promise<void> {
  const { client, flags, terminal } = invocation;
  const ageMs = flags["older-than"] === undefined ? 0 : parseAge(flags["older-than"]);
  const used = await usedImageIds(invocation);
  const { images } = await client.call("ListImages", {});
  let freed = 0n;
  for (const image of images) {
    if (image.pinned || used.has(image.id)) continue;
    if (ageMs > 0 && Date.now() - (await pulledAtMs(invocation, image)) < ageMs) continue;
    await client.call("RemoveImage", { image: { image: image.id } });
    freed += image.size;
    const [name = image.id] = image.repoTags;
    await write(
      terminal.out,
      flags.json ? formatJson({ id: image.id, repoTags: image.repoTags }) : `removed ${name}\n`,
    );
  }
  if (!flags.json) await write(terminal.out, `${formatBytes(freed)} freed, layers shared with others not deducted\n`);
}
