import { createHash } from "node:crypto";
import path from "node:path";
import { imageCreated } from "./root-filesystem.ts";
import { runCommand } from "./run-command.ts";

/** What goes into an image's config, in the words of the OCI image specification. */
export interface ImageConfig {
  readonly entrypoint?: readonly string[];
  readonly cmd?: readonly string[];
  readonly env?: readonly string[];
  readonly user?: string;
  readonly workingDir?: string;
  readonly stopSignal?: string;
  readonly volumes?: readonly string[];
  readonly labels?: readonly string[];
  readonly architecture?: string;
}

interface PushOptions {
  /** v2s2 is Docker's schema 2. */
  readonly format?: "oci" | "v2s2";
  readonly compression?: "gzip" | "zstd";
}

/** Makes an empty OCI layout; images are added to it as tags by umoci, and pushed by skopeo. */
export async function createLayout(directory: string): Promise<string> {
  await runCommand(["umoci", "init", "--layout", directory]);
  return directory;
}

/** Adds an image made of the given layers (tar archives, lowest first). */
export async function addImage(
  layout: string,
  tag: string,
  layers: readonly string[],
  config: ImageConfig = {},
): Promise<void> {
  const image = `${layout}:${tag}`;
  await runCommand(["umoci", "new", "--image", image]);
  for (const layer of layers) {
    await runCommand([
      "umoci",
      "raw",
      "add-layer",
      "--image",
      image,
      `--history.created=${imageCreated}`,
      `--history.created_by=add ${path.basename(layer)}`,
      layer,
    ]);
  }
  await configureImage(layout, tag, tag, config);
}

/** Makes `tag` from the image `base` of the same layout with another config. */
export async function configureImage(layout: string, base: string, tag: string, config: ImageConfig): Promise<void> {
  await runCommand([
    "umoci",
    "config",
    "--image",
    `${layout}:${base}`,
    "--tag",
    tag,
    "--no-history",
    `--created=${imageCreated}`,
    ...configFlags(config),
  ]);
}

function configFlags(config: ImageConfig): string[] {
  const repeated = (flag: string, values: readonly string[] = []): string[] =>
    values.map((value) => `--config.${flag}=${value}`);
  const single = (flag: string, value?: string): string[] => (value === undefined ? [] : [`--${flag}=${value}`]);
  return [
    ...repeated("entrypoint", config.entrypoint),
    ...repeated("cmd", config.cmd),
    ...repeated("env", config.env),
    ...repeated("volume", config.volumes),
    ...repeated("label", config.labels),
    ...single("config.user", config.user),
    ...single("config.workingdir", config.workingDir),
    ...single("config.stopsignal", config.stopSignal),
    ...single("architecture", config.architecture),
  ];
}

/** Pushes one image of a layout to a registry on plain HTTP; `target` is `host:port/name:tag`. */
export async function pushImage(layout: string, tag: string, target: string, options: PushOptions = {}): Promise<void> {
  // Skopeo remembers what it pushed; keep that memory beside the layout, not in the machine's /var/lib/containers.
  const env = { _CONTAINERS_ROOTLESS_UID: "1", XDG_DATA_HOME: `${layout}.skopeo-${options.compression ?? "gzip"}` };
  const command = [
    "skopeo",
    "copy",
    "--quiet",
    "--insecure-policy",
    "--dest-tls-verify=false",
    ...(options.format === undefined ? [] : ["--format", options.format]),
    ...(options.compression === undefined ? [] : ["--dest-compress-format", options.compression]),
    `oci:${layout}:${tag}`,
    `docker://${target}`,
  ];
  await runCommand(command, { env });
}

const oci = {
  manifest: "application/vnd.oci.image.manifest.v1+json",
  index: "application/vnd.oci.image.index.v1+json",
};
const octets = "application/octet-stream";
const docker = {
  manifest: "application/vnd.docker.distribution.manifest.v2+json",
  index: "application/vnd.docker.distribution.manifest.list.v2+json",
};

/** Pushes an index over images that are in the same repository already, in the given order; returns its digest. */
export async function pushIndex(
  registry: string,
  repository: string,
  tag: string,
  entries: readonly { tag: string; architecture: string }[],
): Promise<string> {
  const manifests: object[] = [];
  let mediaType = "";
  for (const entry of entries) {
    const found = await fetchManifest(registry, repository, entry.tag);
    mediaType = found.mediaType;
    manifests.push({ ...found, platform: { os: "linux", architecture: entry.architecture } });
  }
  const indexType = mediaType === docker.manifest ? docker.index : oci.index;
  const response = await fetch(`http://${registry}/v2/${repository}/manifests/${tag}`, {
    method: "PUT",
    headers: { "content-type": indexType },
    body: JSON.stringify({ schemaVersion: 2, mediaType: indexType, manifests }),
  });
  if (!response.ok)
    throw new Error(`pushing the index ${repository}:${tag}: ${response.status} ${await response.text()}`);
  return response.headers.get("docker-content-digest") ?? "";
}

/** Pushes files as an artifact, each a blob with its name; `target` is `host:port/name:tag`. */
export async function pushArtifact(target: string, files: Readonly<Record<string, string>>): Promise<void> {
  const [, registry = "", repository = "", tag = ""] = /^([^/]+)\/(.+):([^:]+)$/u.exec(target) ?? [];
  const base = `http://${registry}/v2/${repository}`;
  const empty = await pushBlob(base, "{}", "application/vnd.oci.empty.v1+json");
  const layers: object[] = [];
  for (const [title, content] of Object.entries(files)) {
    const blob = await pushBlob(base, content, octets);
    layers.push({ ...blob, annotations: { "org.opencontainers.image.title": title } });
  }
  const artifactType = "application/vnd.example.files";
  const manifest = { schemaVersion: 2, mediaType: oci.manifest, artifactType, config: empty, layers };
  const headers = { "content-type": oci.manifest };
  const response = await fetch(`${base}/manifests/${tag}`, { method: "PUT", headers, body: JSON.stringify(manifest) });
  if (!response.ok) throw new Error(`pushing the artifact ${target}: ${response.status} ${await response.text()}`);
}

async function pushBlob(base: string, content: string, mediaType: string): Promise<object> {
  const digest = `sha256:${createHash("sha256").update(content).digest("hex")}`;
  const begun = await fetch(`${base}/blobs/uploads/`, { method: "POST" });
  const place = new URL(begun.headers.get("location") ?? "", base);
  place.searchParams.set("digest", digest);
  const response = await fetch(place, { method: "PUT", headers: { "content-type": octets }, body: content });
  if (!response.ok) throw new Error(`pushing a blob to ${base}: ${response.status} ${await response.text()}`);
  return { mediaType, digest, size: Buffer.byteLength(content) };
}

/** Reads the descriptor of a manifest in the registry. */
export async function fetchManifest(
  registry: string,
  repository: string,
  reference: string,
): Promise<{ mediaType: string; digest: string; size: number }> {
  const response = await fetch(`http://${registry}/v2/${repository}/manifests/${reference}`, {
    headers: { accept: [oci.manifest, docker.manifest, oci.index, docker.index].join(", ") },
  });
  if (!response.ok) throw new Error(`reading the manifest ${repository}:${reference}: ${response.status}`);
  const size = (await response.arrayBuffer()).byteLength;
  const mediaType = response.headers.get("content-type") ?? "";
  return { mediaType, digest: response.headers.get("docker-content-digest") ?? "", size };
}
