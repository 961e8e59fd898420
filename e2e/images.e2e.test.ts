import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { credentials, type FaultyRegistry, startFaultyRegistry } from "./harness/faulty-registry.ts";
import { useDaemon } from "./harness/fixture.ts";
import { fetchManifest } from "./harness/image-builder.ts";
import type { testImages } from "./harness/test-images.ts";

let front: FaultyRegistry;
beforeAll(async () => {
  front = await startFaultyRegistry(inject("registry"));
});
const berth = useDaemon({ pull: [], registries: () => [front.address] });
afterAll(() => front[Symbol.asyncDispose]());

async function pull(image: string): Promise<string> {
  return (await berth.call("PullImage", { image: { image } })).imageRef;
}

async function removeAll(): Promise<void> {
  for (const { id } of (await berth.call("ListImages")).images)
    await berth.call("RemoveImage", { image: { image: id } });
}

describe.each(["busybox", "docker", "zstd", "index"] as const)("the image of kind %s", (name) => {
  test("is pulled, told of by every name, runs, and is gone after its removal", async () => {
    const reference = berth.image(name);
    const id = await pull(reference);
    const repository = reference.replace(/:[^:/]+$/u, "");
    const { digest } = await fetchManifest(inject("registry"), `berth/${name}`, reference.split(":").at(-1) ?? "");

    const { image } = await berth.call("ImageStatus", { image: { image: reference } });
    expect(image).toMatchObject({ id, repoTags: [reference], repoDigests: [`${repository}@${digest}`] });
    expect(image?.size).toBeGreaterThan(1_000_000n);
    for (const other of [id, id.replace("sha256:", "").slice(0, 12), `${repository}@${digest}`]) {
      expect((await berth.call("ImageStatus", { image: { image: other } })).image?.id, other).toBe(id);
    }
    const pod = await berth.runPod();
    const { log } = await berth.runToEnd(pod, ["echo", "hello"], { image: { image: reference } });
    expect(log).toEqual(["stdout hello"]);
    await berth.removePod(pod.id);

    await berth.call("RemoveImage", { image: { image: reference } });
    expect((await berth.call("ImageStatus", { image: { image: id } })).image).toBeNull();
    expect((await berth.call("ListImages")).images).toEqual([]);
  });
});

test("an image pulled by digest has no tag", async () => {
  const { digest } = await fetchManifest(inject("registry"), "berth/busybox", "1");
  const reference = `${inject("registry")}/berth/busybox@${digest}`;
  const id = await pull(reference);
  const { image } = await berth.call("ImageStatus", { image: { image: reference } });
  expect(image).toMatchObject({ id, repoTags: [], repoDigests: [reference] });
  await removeAll();
});

test("two tags of one image are one image, and removing one removes both", async () => {
  const id = await pull(berth.image("busybox"));
  expect(await pull(berth.image("alias"))).toBe(id);
  const { images } = await berth.call("ListImages");
  expect(images.map((image) => image.id)).toEqual([id]);
  expect(images[0]?.repoTags.toSorted()).toEqual([berth.image("busybox"), berth.image("alias")].toSorted());
  await berth.call("RemoveImage", { image: { image: berth.image("alias") } });
  expect((await berth.call("ImageStatus", { image: { image: berth.image("busybox") } })).image).toBeNull();
});

test("identical pulls at the same time share one result", async () => {
  const ids = await Promise.all([1, 2, 3, 4].map(() => pull(berth.image("busybox"))));
  expect(new Set(ids).size).toBe(1);
  await removeAll();
});

test("the image's user is told", async () => {
  await pull(berth.image("configured"));
  const { image } = await berth.call("ImageStatus", { image: { image: berth.image("configured") } });
  expect(image).toMatchObject({ username: "web", uid: null });
  await removeAll();
});

test("ImageStatus tells the config when asked for more", async () => {
  await pull(berth.image("configured"));
  const request = { image: { image: berth.image("configured") }, verbose: true };
  const { info } = await berth.call("ImageStatus", request);
  expect(JSON.parse(info["info"] ?? "{}")).toMatchObject({ imageSpec: { config: { WorkingDir: "/home/web/work" } } });
  await removeAll();
});

test("ListImages can be asked for one image", async () => {
  const id = await pull(berth.image("busybox"));
  await pull(berth.image("configured"));
  const ask = async (image: string): Promise<string[]> =>
    (await berth.call("ListImages", { filter: { image: { image } } })).images.map((found) => found.id);
  expect(await ask(berth.image("busybox"))).toEqual([id]);
  expect(await ask("registry.example/none:1")).toEqual([]);
  await removeAll();
});

test("layers keep whiteouts, links, owners, modes, devices and times", async () => {
  await pull(berth.image("layers"));
  const pod = await berth.runPod();
  const containerId = await berth.startContainer(pod, { image: { image: berth.image("layers") } });
  const show = (script: string): Promise<string> => berth.shell(containerId, `cd /odd; ${script}`);
  expect(await show("ls")).toBe("attribute\nfifo\nhard-link\nkept\nnull\nopaque\nowned\nsetuid\nsymlink");
  expect(await show("ls opaque; cat kept")).toBe("new\nkept");
  expect(await show("[ kept -ef hard-link ] && echo same || stat -c %i kept hard-link")).toMatch(/^same$|^(\d+)\n\1$/u);
  expect(await show("stat -c '%u:%g' owned; stat -c %a setuid null; stat -c '%F %t:%T' null")).toBe(
    "70000:70001\n4755\n620\ncharacter special file 1:3",
  );
  expect(await show("readlink symlink; stat -c %F fifo; stat -c %Y kept")).toBe(
    "../../../etc/passwd\nfifo\n1700000000",
  );
  await berth.removePod(pod.id);
  await removeAll();
});

test("an image in use keeps running when it is removed, or is refused, and nothing breaks", async () => {
  await pull(berth.image("busybox"));
  const pod = await berth.runPod();
  const containerId = await berth.startContainer(pod);
  await berth.call("RemoveImage", { image: { image: berth.image("busybox") } }).catch(() => {});
  expect(await berth.shell(containerId, "echo alive; cat /etc/passwd | head -n 1")).toMatch(/^alive\nroot:/u);
  await berth.removePod(pod.id);
  await removeAll();
});

test("ImageFsInfo tells where images lie and how much they take", async () => {
  await pull(berth.image("busybox"));
  const { imageFilesystems, containerFilesystems } = await berth.call("ImageFsInfo");
  expect(imageFilesystems).toHaveLength(1);
  expect(imageFilesystems[0]?.usedBytes?.value).toBeGreaterThan(1_000_000n);
  expect(imageFilesystems[0]?.inodesUsed?.value).toBeGreaterThan(10n);
  expect(imageFilesystems[0]?.timestamp).toBeGreaterThan(0n);
  expect(imageFilesystems[0]?.fsId?.mountpoint).toContain(berth.workspace.root);
  expect(containerFilesystems.length).toBeLessThanOrEqual(1);
  await removeAll();
});

describe("a registry that asks who is there", () => {
  const auth = { username: credentials.username, password: credentials.password };
  test.each(["basic", "token"])("gets the request's credentials by way of %s", async (kind) => {
    const image = { image: `${front.address}/${kind}/berth/busybox:1` };
    await expect(berth.call("PullImage", { image })).rejects.toThrow();
    const { imageRef } = await berth.call("PullImage", { image, auth });
    expect(imageRef).not.toBe("");
    const encoded = Buffer.from(`${auth.username}:${auth.password}`).toString("base64");
    await berth.call("PullImage", { image, auth: { auth: encoded } });
    await removeAll();
  });
  test("does not find its credentials in the log", async () => {
    const log = await berth.daemon.readLog();
    expect(log).not.toContain(credentials.password);
    expect(log).not.toContain(Buffer.from(`${auth.username}:${auth.password}`).toString("base64"));
    expect(log).not.toContain("a-token-for-pulling");
  });
});

test("a pull that ran out of time leaves nothing and can be repeated", async () => {
  const before = await berth.findTraces();
  await expect(
    berth.call("PullImage", { image: { image: berth.image("busybox") } }, { timeoutMs: 1 }),
  ).rejects.toMatchObject({ code: 4 });
  await berth.expectNothingNew(before);
  await pull(berth.image("busybox" satisfies keyof typeof testImages));
  await removeAll();
});
