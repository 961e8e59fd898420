import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { loadServices } from "./codec.ts";
import { renderLock, renderTypes } from "./generate-types.ts";
import { messagesOf, readSchema } from "./schema.ts";

const read = (name: string): Promise<string> => readFile(new URL(name, import.meta.url), "utf8");

test("every message, field number, type, label, enum value and RPC is as wire.lock pins it", async () => {
  // If this fails on purpose: node cri-api/generate-types.ts --write-lock, and say why in the commit.
  expect(renderLock()).toBe(await read("wire.lock"));
});

test("the types are what the generator writes from the contracts", async () => {
  // If this fails: node cri-api/generate-types.ts
  expect(await read("messages.ts")).toBe(renderTypes("runtime.v1"));
  expect(await read("berth-messages.ts")).toBe(renderTypes("berth.v1"));
});

test("the contract has 43 RPCs, 7 of them streams, and 175 messages", () => {
  const methods = loadServices().filter((method) => method.service !== "ImageAdmin");
  expect(methods).toHaveLength(43);
  expect(methods.filter((method) => method.service === "ImageService")).toHaveLength(6);
  expect(methods.filter((method) => method.responseStream).map((method) => method.name)).toEqual([
    "StreamPodSandboxes",
    "StreamContainers",
    "StreamContainerStats",
    "StreamPodSandboxStats",
    "GetContainerEvents",
    "StreamPodSandboxMetrics",
    "StreamImages",
  ]);
  expect(new Set(methods.map((method) => method.name)).size).toBe(43);
  expect(messagesOf(readSchema("runtime.v1"))).toHaveLength(175);
});

test("a method's path is the one clients dial", () => {
  expect(loadServices().map((method) => method.path)).toContain("/runtime.v1.RuntimeService/RunPodSandbox");
  expect(loadServices().map((method) => method.path)).toContain("/runtime.v1.ImageService/PullImage");
});

test("credentials are marked for redaction", () => {
  const auth = messagesOf(readSchema("runtime.v1")).find((type) => type.name === "AuthConfig");
  const secret = auth?.fieldsArray
    .filter((field) => field.options?.["debug_redact"] === true)
    .map((field) => field.name);
  expect(secret).toEqual(["username", "password", "auth", "identityToken", "registryToken"]);
});
