import { Code, CriError } from "../../cri-api/index.ts";
import type { Invocation } from "./command.ts";
import { formatBytes, formatJson, write } from "./output.ts";

/** @throws {CriError} `DataLoss` when something is damaged and stays so. */
export async function verifyImages({ client, names, flags, terminal }: Invocation): Promise<void> {
  const counts: Record<string, number> = {};
  let bytes = 0n;
  for await (const layer of client.stream("VerifyImages", { images: names, repair: flags.repair })) {
    counts[layer.outcome] = (counts[layer.outcome] ?? 0) + 1;
    bytes += layer.uncompressedBytes;
    const isNews = layer.outcome !== "whole";
    if (flags.json) await write(terminal.out, formatJson(layer));
    else if (isNews) await write(terminal.out, `${layer.layer} is ${layer.outcome}: ${layer.detail}\n`);
  }
  const summary = Object.entries(counts).map(([outcome, count]) => `${count} ${outcome}`);
  if (!flags.json) await write(terminal.out, `${summary.join(", ") || "no layers"} (${formatBytes(bytes)})\n`);
  if ((counts["damaged"] ?? 0) > 0) throw new CriError(Code.DataLoss, `${counts["damaged"]} layers are damaged`);
}
