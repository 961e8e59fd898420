import * as v from "valibot";
import type { JsonCodecs } from "../cri-api/index.ts";
import type { Container } from "./container.ts";
import { refuseNewerSchema } from "../native/index.ts";
import type { RecordFormat } from "./record-store.ts";
import type { Sandbox } from "./sandbox.ts";

/**
 * Records on disk are one JSON object each: `schemaVersion`, the record's own fields, and the CRI messages in
 * protobuf's JSON mapping. A newer schema than this one is refused, not guessed at.
 */
const schemaVersion = 1;

const id = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/));
const ns = v.pipe(
  v.string(),
  v.regex(/^\d{1,19}$/),
  v.transform((digits) => BigInt(digits)),
);
const int = v.pipe(v.number(), v.safeInteger());
const process = v.object({ pid: v.pipe(int, v.minValue(1)), startTime: v.pipe(v.string(), v.regex(/^\d+$/)) });

const sandboxBase = {
  schemaVersion: v.literal(schemaVersion),
  id,
  name: v.string(),
  config: v.unknown(),
  runtimeHandler: v.string(),
  runtime: v.string(),
  createdAtNs: ns,
  selinuxLevel: v.optional(v.string()),
};
const ips = v.array(v.string());
const sandboxSchema = v.variant("state", [
  v.object({ ...sandboxBase, state: v.literal("creating") }),
  v.object({ ...sandboxBase, state: v.literal("ready"), ips, pause: v.optional(process) }),
  v.object({ ...sandboxBase, state: v.literal("not-ready"), ips }),
  v.object({ ...sandboxBase, state: v.literal("stopped"), ips }),
]);

const containerBase = {
  schemaVersion: v.literal(schemaVersion),
  id,
  sandboxId: id,
  name: v.string(),
  config: v.unknown(),
  runtime: v.string(),
  createdAtNs: ns,
  imageId: v.string(),
  imageRef: v.string(),
  logPath: v.string(),
  resources: v.unknown(),
  wantedResources: v.optional(v.unknown()),
  stopSignal: int,
};
const resolved = { user: v.object({ uid: int, gid: int, supplementalGroups: v.array(int) }) };
const processes = { ...resolved, init: process, monitor: v.optional(process), killAtNs: v.optional(ns) };
const containerSchema = v.variant("state", [
  v.object({ ...containerBase, state: v.literal("creating") }),
  v.object({ ...containerBase, ...processes, state: v.literal("created") }),
  v.object({ ...containerBase, ...processes, state: v.literal("running"), startedAtNs: ns }),
  v.object({
    ...containerBase,
    ...resolved,
    state: v.literal("exited"),
    startedAtNs: ns,
    finishedAtNs: ns,
    exitCode: int,
    reason: v.string(),
    message: v.string(),
  }),
]);

export function sandboxFormat(codecs: JsonCodecs): RecordFormat<Sandbox> {
  return {
    kind: "pod sandbox",
    isVisible: (sandbox) => sandbox.state !== "creating",
    isFoundAgain: (sandbox) => sandbox.state === "not-ready" || sandbox.state === "stopped",
    serialize: (sandbox) => toText({ ...sandbox, config: codecs.PodSandboxConfig.toJson(sandbox.config) }),
    parse(text) {
      const { schemaVersion: _version, config, ...record } = parseRecord(sandboxSchema, text);
      return { ...record, config: codecs.PodSandboxConfig.fromJson(config) } as Sandbox; // every field checked above
    },
  };
}

export function containerFormat(codecs: JsonCodecs): RecordFormat<Container> {
  const limits = codecs.LinuxContainerResources;
  return {
    kind: "container",
    isVisible: (container) => container.state !== "creating",
    isFoundAgain: (container) => container.state === "exited",
    serialize: (container) =>
      toText({
        ...container,
        config: codecs.ContainerConfig.toJson(container.config),
        resources: limits.toJson(container.resources),
        ...(container.wantedResources && { wantedResources: limits.toJson(container.wantedResources) }),
      }),
    parse(text) {
      const { config, resources, wantedResources, ...rest } = parseRecord(containerSchema, text);
      const { schemaVersion: _version, ...record } = rest;
      return {
        ...record,
        config: codecs.ContainerConfig.fromJson(config),
        resources: limits.fromJson(resources),
        ...(wantedResources !== undefined && { wantedResources: limits.fromJson(wantedResources) }),
      };
    },
  };
}

function toText(record: object): string {
  const json = JSON.stringify({ schemaVersion, ...record }, (_key, value: unknown) =>
    typeof value === "bigint" ? value.toString() : value,
  );
  return `${json}\n`;
}

function parseRecord<const S extends v.GenericSchema>(schema: S, text: string): v.InferOutput<S> {
  const json: unknown = JSON.parse(text);
  refuseNewerSchema(json, schemaVersion);
  return v.parse(schema, json);
}
