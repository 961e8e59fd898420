import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { Code, CriError } from "../../cri-api/index.ts";
import type { Client } from "../client.ts";
import { pruneImages } from "./remove.ts";

const images = ["run", "volume", "pinned", "idle"].map((id) => ({
  id,
  repoTags: [],
  size: 5n,
  pinned: id === "pinned",
}));

/** A daemon with two containers, of which one goes while it is looked at; `removed` are the images it was told to. */
function createFakeClient(removed: string[]): Client {
  const answers: Record<string, (request: never) => object> = {
    ListContainers: () => ({ containers: ["there", "gone"].map((id) => ({ id, imageId: "run" })) }),
    ContainerStatus({ containerId }: { containerId: string }) {
      if (containerId === "gone") throw new CriError(Code.NotFound, "gone");
      return { status: { mounts: [{ image: null }, { image: { image: "volume:1" } }] } };
    },
    ImageStatus: ({ image }: { image: { image: string } }) => ({ image: { id: image.image.split(":", 1)[0] } }),
    ListImages: () => ({ images }),
    RemoveImage({ image }: { image: { image: string } }) {
      removed.push(image.image);
      return {};
    },
  };
  const call = async (name: string, request: object): Promise<object> => answers[name]?.(request as never) ?? {};
  return { call } as unknown as Client; // names tie requests to answers in its type
}

test("prune leaves images that containers run or have as volumes, and pinned ones", async () => {
  const removed: string[] = [];
  const terminal = { out: new PassThrough(), err: new PassThrough() };
  await pruneImages({ client: createFakeClient(removed), names: [], flags: {}, terminal });
  expect(removed).toEqual(["idle"]);
  expect(String(terminal.out.read())).toContain("removed idle");
});
