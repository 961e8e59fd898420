import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, beforeEach, describe, expect, test } from "vitest";

import { Code } from "../../cri-api/index.ts";
import { createAuthorities } from "../registry/authorities.ts";
import { defaultLimits, defaultRetry } from "../registry/limits.ts";
import { type FakeRegistry, makeImage, makeTar, plainEndpoint, plainNetwork, startFakeRegistry } from "../testing.ts";
import type { LayerJob } from "./protocol.ts";
import { type JobEvents, runLayer } from "./registry-jobs.ts";

const image = makeImage([makeTar([{ name: "a", content: "x".repeat(100_000) }])], { compress: (tar) => tar });
const [layer] = image.layers;

let registry: FakeRegistry;
let directory: string;

beforeEach(async () => {
  registry = await startFakeRegistry();
  registry.push("team/app", "1", image);
  directory = await mkdtemp(join(tmpdir(), "berth-job-"));
});
afterEach(async () => {
  await registry[Symbol.asyncDispose]();
  await rm(directory, { recursive: true, force: true });
});

function jobOf(progressTimeoutMs: number): LayerJob {
  if (layer === undefined) throw new Error("the image has no layer");
  const { digest, diffId } = layer as { digest: `sha256:${string}`; diffId: `sha256:${string}` };
  const size = image.blobs.get(digest)?.length ?? 0;
  return {
    kind: "layer",
    what: "cannot pull it",
    access: {
      endpoints: [plainEndpoint(registry.host)],
      network: plainNetwork(registry.host),
      limits: defaultLimits,
      policy: { ...defaultRetry, progressTimeoutMs },
      tokens: [],
    },
    layer: { mediaType: "application/vnd.oci.image.layer.v1.tar", digest, diffId, size, urls: [] },
    directory,
  };
}

const silent: JobEvents = {
  authorities: async () => createAuthorities(),
  ranged: { count: 0 },
  onHost: () => undefined,
  onProgress: () => undefined,
  onToken: () => undefined,
  onPiece: async () => undefined,
};

describe("a layer that stops coming", () => {
  test("ends with the time in which no byte came, however long it was on the way before", async () => {
    const blob = image.blobs.get(layer?.digest ?? "") ?? Buffer.alloc(0);
    let sent = 0;
    registry.intercept = ({ response }) => {
      response.writeHead(200, { "content-length": blob.length });
      const send = (): void => {
        if (sent === 10) return; // and then nothing more, with the connection open
        response.write(blob.subarray(sent * 1000, (sent + 1) * 1000));
        sent += 1;
        setTimeout(send, 200);
      };
      send();
    };
    const failure = runLayer(jobOf(1500), silent, new AbortController().signal);
    await expect(failure).rejects.toMatchObject({
      code: Code.DeadlineExceeded,
      message: expect.stringContaining("no byte was downloaded or unpacked for 1.5 s"),
    });
    expect(sent).toBe(10); // over two seconds: each byte that came put the end off
  });
});
