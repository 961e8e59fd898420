import { access, mkdir, rename, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { createRandom } from "../../cri-api/testing.ts";
import { addImage, createLayout } from "../harness/image-builder.ts";
import { cacheDirectory } from "../harness/repository.ts";
import { packLayer } from "../harness/root-filesystem.ts";

/** What a layer is made of. */
interface LayerShape {
  readonly files: number;
  readonly bytes: number;
}

/** Images by tag, each with its layers. */
type Shapes = Readonly<Record<string, readonly LayerShape[]>>;

export const largeTag = "large";
export const oneLayerTag = "one-layer";
export const smallTags: readonly string[] = Array.from({ length: 20 }, (_, index) => `small${index}`);

/** 20 000 files, 500 MB; a base, packages, a program or two, an application. */
const large: Shapes = {
  [largeTag]: [
    { files: 3_500, bytes: 80_000_000 },
    { files: 2_000, bytes: 40_000_000 },
    { files: 4_500, bytes: 110_000_000 },
    { files: 1_000, bytes: 90_000_000 },
    { files: 6_000, bytes: 70_000_000 },
    { files: 200, bytes: 60_000_000 },
    { files: 2_700, bytes: 35_000_000 },
    { files: 100, bytes: 15_000_000 },
  ],
};
/** As much, in one piece. */
const oneLayer: Shapes = { [oneLayerTag]: [{ files: 20_000, bytes: 500_000_000 }] };
/** They have nothing in common. */
const small: Shapes = Object.fromEntries(smallTags.map((tag) => [tag, [{ files: 300, bytes: 10_000_000 }]]));

/** By their folders below .cache. */
const layouts = { "large-image": large, "one-layer": oneLayer, "small-images": small } as const;
export type SyntheticLayout = keyof typeof layouts;

const filesPerFolder = 40;
const blockBytes = 4_096;

/** An OCI layout with synthetic images and their tags, made once and kept below .cache. */
export async function syntheticLayout(
  name: SyntheticLayout,
): Promise<{ readonly layout: string; readonly tags: readonly string[] }> {
  const layout = path.join(cacheDirectory, "bench", name);
  const shapes: Shapes = layouts[name];
  const made = { layout, tags: Object.keys(shapes) };
  const exists = await access(layout).then(
    () => true,
    () => false,
  );
  if (exists) return made;
  console.log(`making ${name}, once`);
  const part = `${layout}.part`;
  await rm(part, { recursive: true, force: true });
  await mkdir(part, { recursive: true });
  const random = createRandom(0x5eed);
  const content = createContent(random);
  const oci = await createLayout(path.join(part, "oci"));
  for (const [tag, layers] of Object.entries(shapes)) {
    const archives: string[] = [];
    for (const [index, layer] of layers.entries()) {
      const directory = path.join(part, `layer${index}`);
      await writeLayer(directory, layer, { random, content });
      archives.push(await packLayer(directory, `${directory}.tar`));
      await rm(directory, { recursive: true });
    }
    await addImage(oci, tag, archives, { cmd: ["true"] });
  }
  await rename(oci, layout);
  await rm(part, { recursive: true });
  return made;
}

type Random = () => number;

/** Bytes to cut files from: words, with a block that does not compress now and then; gzip makes about 0.4 of it. */
function createContent(random: Random): Buffer {
  const letters = "etaoinshrdlcumwfgypbvk";
  const pick = (count: number): number => Math.floor(random() * count);
  const words = Array.from({ length: 3_000 }, () =>
    Array.from({ length: 2 + pick(8) }, () => letters[Math.floor(random() ** 2 * letters.length)]).join(""),
  );
  const word = (): string => words[Math.floor(random() ** 2 * words.length)] ?? "";
  const blocks: Buffer[] = [];
  for (let index = 0; index < 4_096; index++) {
    const block =
      index % 8 === 7
        ? Buffer.from(Array.from({ length: blockBytes }, () => pick(256)))
        : Buffer.from(Array.from({ length: 1_500 }, word).join(" "));
    blocks.push(block.subarray(0, blockBytes));
  }
  return Buffer.concat(blocks);
}

async function writeLayer(
  directory: string,
  layer: LayerShape,
  source: { readonly random: Random; readonly content: Buffer },
): Promise<void> {
  const { random, content } = source;
  // Many small files and a few large ones, as in a real image; scaled so that the layer's size is exact enough.
  const weights = Array.from({ length: layer.files }, () => Math.exp(1.5 * Math.sqrt(-2 * Math.log(1 - random()))));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const base = path.basename(directory);
  for (const [index, weight] of weights.entries()) {
    const folder = path.join(directory, "usr/lib", base, `package${Math.floor(index / filesPerFolder)}`);
    if (index % filesPerFolder === 0) await mkdir(folder, { recursive: true });
    const size = Math.round((layer.bytes * weight) / total);
    await writeFile(path.join(folder, `file${index}`), cut(content, Math.floor(random() * content.length), size));
  }
}

/** `size` bytes from `offset` on, beginning anew where the content ends. */
function cut(content: Buffer, offset: number, size: number): Buffer {
  const pieces: Buffer[] = [];
  let at = offset;
  let missing = size;
  while (missing > 0) {
    const piece = content.subarray(at, at + missing);
    pieces.push(piece);
    missing -= piece.length;
    at = 0;
  }
  return Buffer.concat(pieces);
}
