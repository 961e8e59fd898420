import { expect, test } from "vitest";
import type { cri } from "../cri-api/index.ts";
import type { StoredImage } from "../image-service/index.ts";
import { declaredVolumes } from "./declared-volumes.ts";

function volumesOf(volumes: readonly string[], mounts: readonly string[] = []): readonly string[] {
  const image = { config: { volumes } } as unknown as StoredImage; // what is read of it
  return declaredVolumes(
    image,
    mounts.map((containerPath) => ({ containerPath }) as cri.Mount),
  );
}

test("volumes are absolute, each once, and never lead out", () => {
  expect(volumesOf(["/data", "data/", "/a/../b//c/.", "../../etc"])).toEqual(["/data", "/b/c", "/etc"]);
});

test("a mount takes the place of a volume, however it is spelt", () => {
  expect(volumesOf(["/data", "/data/below"], ["/data/"])).toEqual(["/data/below"]);
});

test("the root and what is the kernel's are nobody's volumes", () => {
  expect(volumesOf(["/", "/proc", "/proc/self", "/sys/fs", "/dev/shm", "/devices"])).toEqual(["/devices"]);
});

test("an image cannot declare volumes without end", () => {
  expect(() => volumesOf(Array.from({ length: 129 }, (_, index) => `/v${index}`))).toThrow("more than 128");
});
