import { Code, CriError, type cri } from "../../cri-api/index.ts";
import type { Invocation } from "./command.ts";
import { formatBytes, formatJson, formatTable, write } from "./output.ts";

const shownIdLength = 12;

function rowsOf(image: cri.Image): readonly (readonly string[])[] {
  const names = image.repoTags.length > 0 ? image.repoTags : image.repoDigests;
  const facts = [
    image.id.replace(/^sha256:/, "").slice(0, shownIdLength),
    formatBytes(image.size),
    image.pinned ? "pinned" : "",
  ];
  return (names.length > 0 ? names : ["<none>"]).map((name) => [name, ...facts]);
}

export async function listImages({ client, names: [name], flags, terminal }: Invocation): Promise<void> {
  const filter = name === undefined ? null : { image: { image: name } };
  const { images } = await client.call("ListImages", { filter });
  if (flags.json) return await write(terminal.out, formatJson(images, 2));
  const rows = images.flatMap(rowsOf).toSorted(([left = ""], [right = ""]) => left.localeCompare(right));
  await write(terminal.out, formatTable([["IMAGE", "ID", "SIZE", ""], ...rows]));
}

/** @throws {CriError} `NotFound`. */
export async function inspectImages({ client, names, terminal }: Invocation): Promise<void> {
  for (const name of names) {
    const { image, info } = await client.call("ImageStatus", { image: { image: name }, verbose: true });
    if (image === null) throw new CriError(Code.NotFound, `image "${name}" not found`);
    await write(terminal.out, formatJson({ status: image, ...JSON.parse(info["info"] ?? "{}") }, 2));
  }
}
