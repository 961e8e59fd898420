import { toPlain } from "./codec.ts";
import type { Init } from "./init.ts";
import type * as cri from "./messages.ts";
import { loadSchema } from "./schema.ts";

/** The messages that records on disk hold. */
interface JsonMessages {
  PodSandboxConfig: cri.PodSandboxConfig;
  ContainerConfig: cri.ContainerConfig;
  LinuxContainerResources: cri.LinuxContainerResources;
}

/** A message as plain JSON and back, without loss: int64 as decimal strings, bytes as base64, enums as names. */
export interface JsonCodec<T> {
  toJson(message: Init<T>): object;
  /** @throws {Error} for a value that is no such message. */
  fromJson(json: unknown): T;
}

export type JsonCodecs = { readonly [Name in keyof JsonMessages]: JsonCodec<JsonMessages[Name]> };

const jsonOptions = { longs: String, enums: String, bytes: String } as const;

/**
 * The JSON codecs of the messages that are kept on disk. For start-up, as `loadServices`.
 *
 * @see https://protobuf.dev/programming-guides/json/
 */
export function loadJsonCodecs(): JsonCodecs {
  const schema = loadSchema("runtime.v1");
  function codecOf<Name extends keyof JsonMessages>(name: Name): JsonCodec<JsonMessages[Name]> {
    const type = schema.lookupType(name);
    return {
      toJson: (message) => type.toObject(type.fromObject(message), jsonOptions),
      fromJson(json) {
        if (typeof json !== "object" || json === null) throw new Error(`no ${name}: ${JSON.stringify(json)}`);
        return type.toObject(type.fromObject(json), toPlain) as JsonMessages[Name];
      },
    };
  }
  return {
    PodSandboxConfig: codecOf("PodSandboxConfig"),
    ContainerConfig: codecOf("ContainerConfig"),
    LinuxContainerResources: codecOf("LinuxContainerResources"),
  };
}
