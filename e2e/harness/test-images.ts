import { chmod, link, mkdir } from "node:fs/promises";
import path from "node:path";
import { addImage, configureImage, createLayout, pushArtifact, pushImage, pushIndex } from "./image-builder.ts";
import { layRootFilesystem, packLayer, writeFiles } from "./root-filesystem.ts";
import { runCommand } from "./run-command.ts";

const environment = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"];

/** The repositories that the end-to-end tests find in their registry; every name is `host:port/<path>`. */
export const testImages = {
  /** Sleeps for ever unless told otherwise; ends at SIGTERM. */
  busybox: "berth/busybox:1",
  /** The same image by another tag. */
  alias: "berth/busybox:alias",
  /** Two layers: the base, and a page with the web server's command. */
  web: "berth/web:1",
  /** User by name with groups, entrypoint and arguments, working directory, environment, stop signal. */
  configured: "berth/configured:1",
  /** Docker schema 2 instead of OCI. */
  docker: "berth/docker:2",
  zstd: "berth/zstd:1",
  /** An index whose first entry is for another architecture. */
  index: "berth/index:1",
  /** Three layers with whiteouts, hard links, set-uid, owners, a device node, extended attributes. */
  layers: "berth/layers:1",
  /** Declares volumes: a folder that it has, one that it lacks, one that is the kernel's. */
  volumes: "berth/volumes:1",
  /** No image: an artifact of {@link artifactFiles}. */
  artifact: "berth/artifact:1",
} as const;

export const artifactFiles: Readonly<Record<string, string>> = {
  "readme.txt": "read me\n",
  "model/weights.bin": "1 2 3\n",
  "model/run.sh": "#!/bin/sh\necho ran\n",
};

/** The page that the web image serves. */
export const webPage = "<h1>Served from a pod by Berth</h1>\n";

const baseConfig = { cmd: ["sh", "-c", "trap 'exit 0' TERM; sleep 2147483647 & wait"], env: environment };
// A first process without a handler ignores SIGTERM; the shell has one.
const serveWeb = "httpd -f -v -p 8080 -h /www & trap 'kill $!; exit 0' TERM; wait";
const webConfig = { cmd: ["sh", "-c", serveWeb], env: environment };
const configuredConfig = {
  entrypoint: [
    "/bin/sh",
    "-c",
    'echo "$0 $*"; trap "echo got USR1; exit 7" USR1; while :; do sleep 0.1; done',
    "entry",
  ],
  cmd: ["one", "two"],
  env: [...environment, "COLOUR=blue", "EMPTY="],
  user: "web",
  workingDir: "/home/web/work",
  stopSignal: "SIGUSR1",
};

/** Builds every test image below `directory` and pushes it to the registry, with umoci and skopeo. */
export async function pushTestImages(directory: string, registry: string): Promise<void> {
  const layout = await buildTestImages(directory);
  const target = (name: string): string => `${registry}/${name}`;
  await pushImage(layout, "base", target(testImages.busybox));
  await pushImage(layout, "base", target(testImages.alias));
  await pushImage(layout, "web", target(testImages.web));
  await pushImage(layout, "configured", target(testImages.configured));
  await pushImage(layout, "base", target(testImages.docker), { format: "v2s2" });
  await pushImage(layout, "base", target(testImages.zstd), { compression: "zstd" });
  await pushImage(layout, "layers", target(testImages.layers));
  await pushImage(layout, "volumes", target(testImages.volumes));
  await pushArtifact(target(testImages.artifact), artifactFiles);
  const architecture = await runCommand(["dpkg", "--print-architecture"]);
  const other = architecture === "amd64" ? "arm64" : "amd64";
  await configureImage(layout, "base", "other", { architecture: other });
  await pushImage(layout, "other", target(`berth/index:${other}`));
  await pushImage(layout, "base", target(`berth/index:${architecture}`));
  const entries = [other, architecture].map((name) => ({ tag: name, architecture: name }));
  await pushIndex(registry, "berth/index", "1", entries);
}

/** The one image of the demonstration, built and pushed afresh. */
export async function pushWebImage(directory: string, registry: string): Promise<void> {
  const layout = await createLayout(path.join(directory, "oci"));
  await addImage(layout, "web", await packWebLayers(directory), webConfig);
  await pushImage(layout, "web", `${registry}/${testImages.web}`);
}

async function buildTestImages(directory: string): Promise<string> {
  const layout = await createLayout(path.join(directory, "oci"));
  const [base = "", page = ""] = await packWebLayers(directory);
  await addImage(layout, "base", [base], baseConfig);
  await addImage(layout, "web", [base, page], webConfig);
  await addImage(layout, "configured", [base], configuredConfig);
  await addImage(layout, "volumes", [base, page], { ...baseConfig, volumes: ["/www", "/absent/deep", "/proc/x"] });
  await addImage(layout, "layers", [base, ...(await packOddLayers(directory))], baseConfig);
  return layout;
}

async function packWebLayers(directory: string): Promise<string[]> {
  await mkdir(directory, { recursive: true });
  const root = path.join(directory, "root");
  await layRootFilesystem(root);
  const page = path.join(directory, "page");
  await writeFiles(page, { "www/index.html": webPage });
  return [
    await packLayer(root, path.join(directory, "base.tar")),
    await packLayer(page, path.join(directory, "page.tar")),
  ];
}

/** Two layers that use what a tar archive and an image can say beyond plain files. */
async function packOddLayers(directory: string): Promise<string[]> {
  const first = path.join(directory, "odd-1");
  await writeFiles(first, {
    "odd/deleted": "must not be seen\n",
    "odd/kept": "kept\n",
    "odd/opaque/old": "must not be seen\n",
    "odd/owned": "",
    "odd/setuid": "#!/bin/sh\n",
    "odd/attribute": "",
  });
  const at = (name: string): string => path.join(first, "odd", name);
  await link(at("kept"), at("hard-link"));
  await chmod(at("setuid"), 0o4755);
  await runCommand(["chown", "70000:70001", at("owned")]);
  await runCommand(["mknod", "-m", "0620", at("null"), "c", "1", "3"]);
  await runCommand(["ln", "-s", "../../../etc/passwd", at("symlink")]);
  await runCommand(["mkfifo", at("fifo")]);
  const second = path.join(directory, "odd-2");
  await writeFiles(second, { "odd/.wh.deleted": "", "odd/opaque/.wh..wh..opq": "", "odd/opaque/new": "new\n" });
  return [
    await packLayer(first, path.join(directory, "odd-1.tar")),
    await packLayer(second, path.join(directory, "odd-2.tar")),
  ];
}
