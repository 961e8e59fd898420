import * as v from "valibot";

import { type Digest, isDigest } from "./digest.ts";
import type { Platform } from "./platform.ts";
import { quote } from "./reference.ts";

/** The part of an OCI image configuration that running a container needs; absent fields are empty. */
export interface ImageConfig {
  readonly entrypoint: readonly string[];
  readonly cmd: readonly string[];
  readonly env: readonly string[];
  readonly workingDir: string;
  readonly user: string;
  readonly stopSignal: string;
  readonly volumes: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
}

/** A parsed image configuration document. */
export interface ImageDocument {
  readonly config: ImageConfig;
  readonly platform: Platform;
  readonly diffIds: readonly Digest[];
}

const strings = v.nullish(v.array(v.string()), []);
const text = v.nullish(v.string(), "");
const schema = v.object({
  os: text,
  architecture: text,
  variant: text,
  rootfs: v.object({
    type: v.optional(v.literal("layers"), "layers"),
    diff_ids: v.nullish(
      v.array(v.custom<Digest>((value) => typeof value === "string" && isDigest(value), "not a digest")),
      [],
    ),
  }),
  config: v.nullish(
    v.object({
      Entrypoint: strings,
      Cmd: strings,
      Env: strings,
      WorkingDir: text,
      User: text,
      StopSignal: text,
      Volumes: v.nullish(v.record(v.string(), v.unknown()), {}),
      Labels: v.nullish(v.record(v.string(), v.string()), {}),
    }),
  ),
});

const emptyConfig: ImageConfig = {
  entrypoint: [],
  cmd: [],
  env: [],
  workingDir: "",
  user: "",
  stopSignal: "",
  volumes: [],
  labels: {},
};

/** What stands for the configuration that an artifact has not: all of its files are one layer, named by its manifest. */
export function artifactDocument(manifestDigest: Digest): ImageDocument {
  return {
    config: emptyConfig,
    platform: { os: "linux", architecture: "", variant: undefined },
    diffIds: [manifestDigest],
  };
}

/**
 * Reads an image configuration.
 *
 * @throws {Error} naming the first field that is malformed.
 * @see https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md
 */
export function parseImageDocument(json: string): ImageDocument {
  const parsed = v.safeParse(schema, JSON.parse(json));
  if (!parsed.success) {
    const [issue] = parsed.issues;
    throw new Error(`the image config is malformed at ${quote(v.getDotPath(issue) ?? "")}`);
  }
  const { os, architecture, variant, rootfs, config } = parsed.output;
  return {
    platform: { os: os || "linux", architecture, variant: variant || undefined },
    diffIds: rootfs.diff_ids,
    config:
      config === null || config === undefined
        ? emptyConfig
        : {
            entrypoint: config.Entrypoint,
            cmd: config.Cmd,
            env: config.Env,
            workingDir: config.WorkingDir,
            user: config.User,
            stopSignal: config.StopSignal,
            volumes: Object.keys(config.Volumes),
            labels: config.Labels,
          },
  };
}
