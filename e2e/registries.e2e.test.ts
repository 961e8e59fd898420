import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { credentials, type FaultyRegistry, startFaultyRegistry } from "./harness/faulty-registry.ts";
import { useDaemon } from "./harness/fixture.ts";

let front: FaultyRegistry;
beforeAll(async () => {
  front = await startFaultyRegistry(inject("registry"));
});
const berth = useDaemon({ pull: [], registries: () => [front.address] });
afterAll(() => front[Symbol.asyncDispose]());

const fileNamed = (name: string): string => path.join(berth.workspace.directory, "registries", name);

/** Pulls, and makes room for the next pull. */
async function pull(image: string): Promise<void> {
  const { imageRef } = await berth.call("PullImage", { image: { image } });
  await berth.call("RemoveImage", { image: { image: imageRef } });
}

async function registriesReady(): Promise<unknown> {
  const { status } = await berth.call("Status");
  return status?.conditions.find(({ type }) => type === "RegistriesReady");
}

test("auth.json is read at the next pull, and nothing of it reaches the log, which tells everything", async () => {
  const image = `${front.address}/basic/berth/busybox:1`;
  await expect(pull(image)).rejects.toThrow("authentication required");
  const auth = Buffer.from(`${credentials.username}:${credentials.password}`).toString("base64");
  await writeFile(fileNamed("auth.json"), JSON.stringify({ auths: { [`${front.address}/basic`]: { auth } } }));
  await pull(image);
  await writeFile(fileNamed("auth.json"), `{"auths":{"${front.address}":{"auth":"${auth}"`);
  await pull(image);
  const log = await berth.daemon.readLog();
  expect(log).toContain("auth.json: it is not JSON");
  expect(log).toContain('"rpc":"PullImage"');
  for (const secret of [auth, credentials.password]) expect(log).not.toContain(secret);
  await writeFile(fileNamed("auth.json"), "{}");
});

test("a broken registries.conf changes nothing but Status, and is in force once it is mended", async () => {
  const image = berth.image("busybox");
  const good = await readFile(fileNamed("registries.conf"), "utf8");
  await pull(image);
  expect(await registriesReady()).toMatchObject({ status: true });
  await writeFile(fileNamed("registries.conf"), `${good}\nshort-name-mode = \n`);
  await pull(image);
  expect(await registriesReady()).toMatchObject({ status: false, message: expect.stringContaining("registries.conf") });
  await writeFile(fileNamed("registries.conf"), `[[registry]]\nlocation = "${inject("registry")}"\nblocked = true\n`);
  await expect(pull(image)).rejects.toThrow("is blocked in registries.conf");
  await writeFile(fileNamed("registries.conf"), good);
  await pull(image);
  expect(await registriesReady()).toMatchObject({ status: true });
});
