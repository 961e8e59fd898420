import { expect, test } from "vitest";

import { type Digest, digestOf } from "../digest.ts";
import { createTestLogger } from "../testing.ts";
import type { LayerFiles } from "./layer-files.ts";
import type { LayerRecord } from "./layer-record.ts";
import { type LayerStore, openLayerStore } from "./layer-store.ts";

const diffId: Digest = digestOf("layer", undefined);
const { signal } = new AbortController();
const unpack = async (): Promise<never> => {
  throw new Error("nothing is unpacked here");
};

/** A store of one layer, and what became of each unpacking; `onReady` runs just before they are to take their place. */
async function openStore(): Promise<{ store: LayerStore; unpacked: string[]; onReady: { run: () => void } }> {
  const unpacked: string[] = [];
  const onReady = { run: (): void => undefined };
  const recordOf = (bootId: string): LayerRecord => ({
    schemaVersion: 1,
    diffId,
    usedBytes: 0,
    inodes: 0,
    uncompressedBytes: 0,
    bootId,
    isDurable: true,
  });
  const files: LayerFiles = {
    load: async () => [recordOf("first")],
    rootOf: () => "/layer",
    async add(_diffId, _signal, _unpack, { mayReplace }) {
      onReady.run();
      if (mayReplace?.() === false) {
        unpacked.push("given up");
        return undefined;
      }
      unpacked.push(mayReplace === undefined ? "added" : "replaced");
      return recordOf("second");
    },
    remove: async () => ({ freed: Promise.resolve() }),
    makeDurable: async () => [],
  };
  return { store: await openLayerStore(files, createTestLogger()), unpacked, onReady };
}

test("a damaged layer is replaced once, by whoever wants it next", async () => {
  const { store, unpacked } = await openStore();
  store.hold([diffId]);
  store.condemn(diffId);
  expect(store.isSound(diffId)).toBe(false);
  await store.ensure(diffId, signal, unpack);
  await store.ensure(diffId, signal, unpack);
  expect(unpacked).toEqual(["replaced"]);
  expect(store.isSound(diffId)).toBe(true);
});

test("a damaged layer that a container has come to stand on stays until the container has gone", async () => {
  const { store, unpacked } = await openStore();
  store.hold([diffId]);
  store.condemn(diffId);
  const mounted = store.holdMounted([diffId]);
  await store.ensure(diffId, signal, unpack); // a later pull of its image
  expect(unpacked).toEqual([]);
  expect(store.isSound(diffId)).toBe(false);

  await mounted.release();
  await mounted.release();
  await store.ensure(diffId, signal, unpack);
  expect(unpacked).toEqual(["replaced"]);
});

test("a damaged layer stays if a container comes to stand on it while the new one is unpacked", async () => {
  const { store, unpacked, onReady } = await openStore();
  store.hold([diffId]);
  store.condemn(diffId);
  onReady.run = () => void store.holdMounted([diffId]);
  await store.ensure(diffId, signal, unpack);
  expect(unpacked).toEqual(["given up"]);
  expect(store.isMounted(diffId)).toBe(true);
  expect(store.isSound(diffId)).toBe(false);
});
