import { createReadStream } from "node:fs";
import { open, rm } from "node:fs/promises";
import type { Readable } from "node:stream";

import type { berth, Init } from "../../cri-api/index.ts";
import type { Invocation } from "./command.ts";
import { type ImagesFlags, UsageError } from "./options.ts";
import { formatJson, write } from "./output.ts";

const chunkBytes = 1 << 20;

async function* importRequests(
  flags: ImagesFlags,
  source: Readable,
): AsyncGenerator<Init<berth.ImportImagesRequest>, void> {
  const { name, platform, "all-platforms": allPlatforms } = flags;
  yield { options: { name, platform, allPlatforms } };
  for await (const chunk of source as AsyncIterable<Buffer>) yield { chunk };
}

export async function importImages({ client, names: [file = "-"], flags, terminal }: Invocation): Promise<void> {
  const source = file === "-" ? process.stdin : createReadStream(file, { highWaterMark: chunkBytes });
  for await (const image of client.exchange("ImportImages", importRequests(flags, source))) {
    const text = flags.json ? formatJson(image) : image.names.map((name) => `${name} ${image.imageId}\n`).join("");
    await write(terminal.out, text);
  }
}

type Pieces = AsyncIterable<berth.ExportImagesResponse>;

async function exportToFile(path: string, startExport: () => Pieces): Promise<void> {
  await using file = await open(path, "wx", 0o644);
  try {
    for await (const { chunk } of startExport()) await file.writeFile(chunk);
  } catch (thrown) {
    await rm(path, { force: true }); // half an archive is none
    throw thrown;
  }
}

/** @throws {UsageError} rather than filling a terminal with an archive. */
export async function exportImages({ client, names, flags, terminal }: Invocation): Promise<void> {
  const request = { images: names, allPlatforms: flags["all-platforms"] };
  if (flags.output === undefined && "isTTY" in terminal.out && terminal.out.isTTY === true)
    throw new UsageError("an archive is nothing for a terminal: redirect it, or name a file with -o");
  const startExport = (): Pieces => client.stream("ExportImages", request);
  if (flags.output !== undefined && flags.output !== "-") return await exportToFile(flags.output, startExport);
  for await (const { chunk } of startExport()) await write(terminal.out, chunk);
}
