import { chmod, copyFile, mkdir } from "node:fs/promises";
import path from "node:path";
import {
  addImage,
  configureImage,
  createLayout,
  fetchManifest,
  type ImageConfig,
  pushImage,
  pushIndex,
} from "../harness/image-builder.ts";
import { layRootFilesystem, packLayer, writeFiles } from "../harness/root-filesystem.ts";
import { runCommand } from "../harness/run-command.ts";

/** Hosts whose images critest asks for; the daemon is told to look for them in the local registry. */
export const mirroredHosts = ["registry.k8s.io", "k8s.gcr.io", "gcr.io", "public.ecr.aws"];

interface StandIn extends ImageConfig {
  /** Path below the host and tag. */
  readonly reference: string;
  /** Which layers it is made of, by the name of its folder. */
  readonly layers: readonly string[];
  readonly format?: "oci" | "v2s2";
  /** A plain manifest instead of an index whose first entry is for another architecture. */
  readonly isSingle?: boolean;
}

const e2e = "e2e-test-images";
const cri = "k8s-staging-cri-tools";
const shell = { cmd: ["sh"], env: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] } as const;
const server = { layers: ["base", "servers"], env: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] } as const;
const nginxTitle = "nginx: master process nginx -g daemon off;";
const plain = (name: string, tag: string, config: ImageConfig = {}): StandIn => ({
  ...shell,
  reference: `${cri}/${name}:${tag}`,
  layers: ["base"],
  labels: [`stands.for=${name}:${tag}`], // gives each an id of its own
  ...config,
});
/** Several tags of one image have one label and so one id. */
const sameImage = { labels: ["stands.for=test-image-tags"] };

/** Every image of critest v1.36.0, made from Debian packages and small programs. */
function standIns(architecture: string): readonly StandIn[] {
  return [
    { ...shell, reference: `${e2e}/busybox:1.29-2`, layers: ["base"], format: "oci" },
    { ...server, reference: `${e2e}/nginx:1.14-2`, cmd: ["/usr/sbin/nginx", "80", "/var/run/nginx.pid", nginxTitle] },
    { ...server, reference: `${e2e}/httpd:2.4.39-4`, cmd: ["/usr/sbin/httpd", "80", "/var/run/httpd.pid"] },
    { reference: `${e2e}/nonewprivs:1.3`, layers: ["nonewprivs"], entrypoint: ["/nnp"] },
    { reference: "pause:3.9", layers: ["pause"], entrypoint: ["/pause"] },
    plain("test-image-tag", "test"),
    plain("test-image-tag", "all"),
    plain("test-image-latest", "latest"),
    plain("test-image-digest", "latest"),
    plain("test-image-1", "latest"),
    plain("test-image-2", "latest"),
    plain("test-image-3", "latest"),
    plain("test-image-tags", "1", sameImage),
    plain("test-image-tags", "2", sameImage),
    plain("test-image-tags", "3", sameImage),
    plain("test-image-user-uid", "latest", { user: "1002" }),
    plain("test-image-user-username", "latest", { user: "www-data" }),
    plain("test-image-user-uid-group", "latest", { user: "1003:1004" }),
    plain("test-image-user-username-group", "latest", { user: "www-data:1004" }),
    { ...plain("test-image-predefined-group", "latest", { user: "1000" }), layers: ["base", "group"] },
    {
      ...server,
      reference: `${cri}/hostnet-nginx-${architecture}:latest`,
      cmd: ["/usr/sbin/nginx", "12003", "/var/run/nginx.pid", nginxTitle],
      isSingle: true,
    },
    ...["1", "1-glibc", "1-musl", "1-uclibc", "1.35.0-glibc"].map((tag) => ({
      ...shell,
      reference: `docker/library/busybox:${tag}`,
      layers: ["base"],
      labels: [`stands.for=busybox:${tag}`],
    })),
  ];
}

/** Builds all stand-ins below `directory`, pushes them, and returns the digest of the one that is pulled by digest. */
export async function pushStandIns(directory: string, registry: string): Promise<{ count: number; digest: string }> {
  await mkdir(directory, { recursive: true });
  const layers = await packStandInLayers(directory);
  const layout = await createLayout(path.join(directory, "oci"));
  const architecture = await runCommand(["dpkg", "--print-architecture"]);
  const images = standIns(architecture);
  for (const [index, image] of images.entries()) {
    const files = image.layers.map((name) => layers.get(name) ?? "");
    await addImage(layout, `image${index}`, files, image);
    await push(layout, `image${index}`, image, { registry, architecture });
  }
  const { digest } = await fetchManifest(registry, `${cri}/test-image-digest`, "latest");
  return { count: images.length, digest };
}

async function push(
  layout: string,
  tag: string,
  image: StandIn,
  to: { registry: string; architecture: string },
): Promise<void> {
  const [name = "", imageTag = ""] = image.reference.split(":");
  const format = image.format ?? "v2s2";
  if (image.isSingle === true) return pushImage(layout, tag, `${to.registry}/${image.reference}`, { format });
  const other = to.architecture === "amd64" ? "arm64" : "amd64";
  await configureImage(layout, tag, `${tag}-other`, { architecture: other });
  // The pushes of one repository share blobs; one after the other, the second only sends a config.
  await pushImage(layout, tag, `${to.registry}/${name}:${imageTag}-${to.architecture}`, { format });
  await pushImage(layout, `${tag}-other`, `${to.registry}/${name}:${imageTag}-${other}`, { format });
  const entries = [other, to.architecture].map((entry) => ({ tag: `${imageTag}-${entry}`, architecture: entry }));
  await pushIndex(to.registry, name, imageTag, entries);
}

async function packStandInLayers(directory: string): Promise<ReadonlyMap<string, string>> {
  const at = (name: string): string => path.join(directory, name);
  await layRootFilesystem(at("base"));
  for (const program of ["webserver", "nonewprivs", "pause"]) {
    const source = path.join(import.meta.dirname, "programs", `${program}.c`);
    await runCommand(["gcc", "-static", "-O2", "-s", "-Wl,--build-id=none", "-o", at(`${program}.bin`), source]);
  }
  await placeProgram(at("webserver.bin"), at("servers/usr/sbin/nginx"), 0o755);
  await placeProgram(at("webserver.bin"), at("servers/usr/sbin/httpd"), 0o755);
  await placeProgram(at("nonewprivs.bin"), at("nonewprivs/nnp"), 0o4755);
  await placeProgram(at("pause.bin"), at("pause/pause"), 0o755);
  await writeFiles(at("group"), {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\ndefault-user:x:1000:1000::/home/web:/bin/sh\n",
    "etc/group": "root:x:0:\ndefault-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n",
  });
  const names = ["base", "servers", "nonewprivs", "pause", "group"];
  const packed = names.map(async (name) => [name, await packLayer(at(name), at(`${name}.tar`))] as const);
  return new Map(await Promise.all(packed));
}

async function placeProgram(from: string, to: string, mode: number): Promise<void> {
  await mkdir(path.dirname(to), { recursive: true, mode: 0o755 });
  await copyFile(from, to);
  await chmod(to, mode);
}
