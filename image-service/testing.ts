import { createHash } from "node:crypto";
import { lstatSync, readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { enableCompileCache } from "node:module";
import { type AddressInfo, connect } from "node:net";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";

import type { Call, Logger } from "../cri-api/index.ts";
import { encodeName, spawn, which } from "../native/index.ts";
import type { TrustConfig } from "./config.ts";
import { hostPlatform } from "./platform.ts";
import type { Endpoint, NetworkSettings } from "./registry/endpoint.ts";
import type { RegistriesConfig } from "./registries/config.ts";
import { FileIssue } from "./registries/file-issue.ts";

// Most tests start threads of their own, as the daemon does: with compiled code at hand.
enableCompileCache(join(import.meta.dirname, "../.cache/compile"));

/** One member of a test archive; sensible values stand in for what is left out. */
export interface TestEntry {
  readonly name: string;
  readonly type?: "0" | "1" | "2" | "3" | "4" | "5" | "6" | (string & {});
  readonly content?: string | Uint8Array;
  readonly link?: string;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtime?: number;
  readonly major?: number;
  readonly minor?: number;
  /** Pax records in front of it. */
  readonly pax?: Readonly<Record<string, string | Uint8Array>>;
  /** Stated in the header instead of the content's length. */
  readonly size?: number;
}

function octal(value: number, width: number): string {
  return `${value.toString(8).padStart(width - 1, "0")}\0`;
}

function padded(data: Uint8Array): Buffer {
  return Buffer.concat([data, Buffer.alloc((512 - (data.length % 512)) % 512)]);
}

function paxBody(records: Readonly<Record<string, string | Uint8Array>>): Buffer {
  return Buffer.concat(
    Object.entries(records).map(([key, value]) => {
      const tail = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value), Buffer.from("\n")]);
      let length = tail.length + 1;
      while (String(length).length + tail.length !== length) length = String(length).length + tail.length;
      return Buffer.concat([Buffer.from(String(length)), tail]);
    }),
  );
}

/** One header block, checksum included. */
export function tarHeader(entry: TestEntry, size: number): Buffer {
  const block = Buffer.alloc(512);
  encodeName(entry.name).copy(block, 0, 0, 100);
  block.write(octal(entry.mode ?? (entry.type === "5" ? 0o755 : 0o644), 8), 100);
  block.write(octal(entry.uid ?? 0, 8), 108);
  block.write(octal(entry.gid ?? 0, 8), 116);
  block.write(octal(size, 12), 124);
  block.write(octal(entry.mtime ?? 1_700_000_000, 12), 136);
  block.write(entry.type ?? "0", 156);
  encodeName(entry.link ?? "").copy(block, 157, 0, 100);
  block.write("ustar\x0000", 257);
  block.write(octal(entry.major ?? 0, 8), 329);
  block.write(octal(entry.minor ?? 0, 8), 337);
  block.write("        ", 148);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return block;
}

function tarMember(entry: TestEntry): Buffer {
  const content = Buffer.from(entry.content ?? "");
  const body = paxBody(entry.pax ?? {});
  const extended = body.length === 0 ? [] : [tarHeader({ name: "PaxHeaders/0", type: "x" }, body.length), padded(body)];
  return Buffer.concat([...extended, tarHeader(entry, entry.size ?? content.length), padded(content)]);
}

/** A whole archive. */
export function makeTar(entries: readonly TestEntry[]): Buffer {
  return Buffer.concat([...entries.map(tarMember), Buffer.alloc(1024)]);
}

export function sha256(data: Uint8Array | string): `sha256:${string}` {
  return `sha256:${createHash("sha256").update(data).digest("hex")}`;
}

/** An image as a registry keeps it. */
export interface TestImage {
  readonly id: `sha256:${string}`;
  readonly blobs: ReadonlyMap<string, Buffer>;
  readonly manifest: Buffer;
  readonly mediaType: string;
  readonly architecture: string;
  readonly layers: readonly { readonly digest: string; readonly diffId: string }[];
}

export interface TestImageOptions {
  readonly config?: Readonly<Record<string, unknown>>;
  readonly docker?: boolean;
  readonly compress?: (tar: Buffer) => Buffer;
  readonly layerType?: string;
  /** Where else the layers are. */
  readonly urls?: readonly string[];
  readonly architecture?: string;
  /** Said of the layers instead of the truth. */
  readonly diffIds?: readonly string[];
}

/** Builds an image of the given layers, each an uncompressed archive. */
export function makeImage(tars: readonly Buffer[], options: TestImageOptions = {}): TestImage {
  const blobs = new Map<string, Buffer>();
  const layers = tars.map((tar) => {
    const blob = (options.compress ?? gzipSync)(tar);
    blobs.set(sha256(blob), blob);
    return { digest: sha256(blob), diffId: sha256(tar), size: blob.length };
  });
  const architecture = options.architecture ?? hostPlatform().architecture;
  const config = Buffer.from(
    JSON.stringify({
      os: "linux",
      architecture,
      config: options.config ?? {},
      rootfs: { type: "layers", diff_ids: options.diffIds ?? layers.map(({ diffId }) => diffId) },
    }),
  );
  blobs.set(sha256(config), config);
  const prefix = options.docker ? "application/vnd.docker." : "application/vnd.oci.image.";
  const mediaType = `${prefix}${options.docker ? "distribution.manifest.v2" : "manifest.v1"}+json`;
  const layerType = options.docker ? `${prefix}image.rootfs.diff.tar.gzip` : `${prefix}layer.v1.tar+gzip`;
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType,
      config: {
        mediaType: options.docker ? `${prefix}container.image.v1+json` : `${prefix}config.v1+json`,
        digest: sha256(config),
        size: config.length,
      },
      layers: layers.map(({ digest, size }) => ({
        mediaType: options.layerType ?? layerType,
        digest,
        size,
        ...(options.urls === undefined ? {} : { urls: options.urls }),
      })),
    }),
  );
  return { id: sha256(config), blobs, manifest, mediaType, architecture, layers };
}

/** Builds an artifact of the given files: manifest and blobs, and a config that is no image's. */
export function makeArtifact(files: readonly TestArtifactFile[]): TestImage {
  const empty = Buffer.from("{}");
  const blobs = new Map([[sha256(empty), empty]]);
  const layers = files.map(({ title, content, annotations }) => {
    const blob = Buffer.from(content);
    blobs.set(sha256(blob), blob);
    return {
      mediaType: "application/octet-stream",
      digest: sha256(blob),
      size: blob.length,
      annotations: { ...(title === undefined ? {} : { "org.opencontainers.image.title": title }), ...annotations },
    };
  });
  const mediaType = "application/vnd.oci.image.manifest.v1+json";
  const config = { mediaType: "application/vnd.oci.empty.v1+json", digest: sha256(empty), size: empty.length };
  const manifest = Buffer.from(
    JSON.stringify({ schemaVersion: 2, mediaType, artifactType: "application/vnd.example", config, layers }),
  );
  return { id: sha256(manifest), blobs, manifest, mediaType, architecture: "", layers: [] };
}

export interface TestArtifactFile {
  readonly title?: string;
  readonly content: string | Uint8Array;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** What a test says of a registry: `host[:port]`s of its mirrors, and whether plain HTTP is spoken with it. */
export interface TestRule {
  readonly insecure?: boolean;
  readonly mirrors?: readonly string[];
}

/** The files of a machine that has none, all in `directory`. */
export function registryFilesIn(directory: string): RegistriesConfig {
  return {
    confFile: join(directory, "registries.conf"),
    confDir: join(directory, "registries.conf.d"),
    shortNameAliasesFile: join(directory, "short-name-aliases.conf"),
    hostsDir: join(directory, "hosts.d"),
    certsDirs: [join(directory, "certs.d")],
    authFiles: [{ path: join(directory, "auth.json"), format: "auth.json" }],
    namespacedAuthDir: join(directory, "namespaced"),
    proxies: { httpProxy: "", httpsProxy: "", noProxy: "" },
    authorityFiles: ["/etc/ssl/certs/ca-certificates.crt"],
    helperEnvironment: { PATH: directory, HOME: directory },
  };
}

/** `registries.conf` for the hosts of a test. */
export function registriesConf(rules: Readonly<Record<string, TestRule>>): string {
  const insecure = (host: string): string => `insecure = ${rules[host.split("/", 1)[0] ?? ""]?.insecure === true}\n`;
  const tables = Object.entries(rules).map(([host, { mirrors = [] }]) =>
    [
      `[[registry]]\nlocation = "${host}"\n${insecure(host)}`,
      ...mirrors.map((mirror) => `[[registry.mirror]]\nlocation = "${mirror}"\n${insecure(mirror)}`),
    ].join(""),
  );
  return tables.join("\n");
}

/** Writes `registries.conf` into `directory`, which is made, and tells where it and its like are. */
export async function writeRegistries(
  directory: string,
  rules: Readonly<Record<string, TestRule>>,
): Promise<RegistriesConfig> {
  await mkdir(directory, { recursive: true });
  const files = registryFilesIn(directory);
  await writeFile(files.confFile, registriesConf(rules));
  return files;
}

/** What is said of a file that must be refused. */
export function refusalOf(parse: () => unknown): string {
  try {
    parse();
  } catch (thrown) {
    if (thrown instanceof FileIssue) return thrown.message;
    throw thrown;
  }
  throw new Error("it was read");
}

/** All that a layer must not change of a file outside of its root. */
export function stateOf(path: string): readonly unknown[] {
  const { mode, uid, nlink, ctimeNs } = lstatSync(path, { bigint: true });
  return [readFileSync(path, "utf8"), mode, uid, nlink, ctimeNs];
}

/** Any registry on loopback that takes images over plain HTTP. */
export interface TestRegistry extends AsyncDisposable {
  /** `127.0.0.1:port` */
  readonly host: string;
  putBlob(repository: string, digest: string, body: Buffer): void | Promise<void>;
  putManifest(repository: string, name: string, mediaType: string, body: Buffer): void | Promise<void>;
}

/**
 * Pushes an image to `repository:tag`, or an index of several.
 *
 * @returns the digest that the tag stands for.
 */
export async function pushToRegistry(
  registry: TestRegistry,
  name: `${string}:${string}`,
  image: TestImage,
  index: readonly TestImage[] = [],
): Promise<string> {
  const [repository = "", tag = ""] = name.split(":");
  for (const each of [image, ...index]) {
    for (const [digest, blob] of each.blobs) await registry.putBlob(repository, digest, blob);
    const reference = index.length === 0 ? tag : sha256(each.manifest);
    await registry.putManifest(repository, reference, each.mediaType, each.manifest);
  }
  if (index.length === 0) return sha256(image.manifest);
  const mediaType = "application/vnd.oci.image.index.v1+json";
  const manifests = index.map(({ manifest, mediaType: type, architecture }) => ({
    mediaType: type,
    digest: sha256(manifest),
    size: manifest.length,
    platform: { os: "linux", architecture },
  }));
  const body = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, manifests }));
  await registry.putManifest(repository, tag, mediaType, body);
  return sha256(body);
}

async function put(url: string, contentType: string, body: Buffer): Promise<void> {
  const response = await fetch(url, { method: "PUT", headers: { "content-type": contentType }, body });
  if (response.status !== 201) throw new Error(`PUT ${url}: ${response.status} ${await response.text()}`);
}

export interface DockerRegistryOptions {
  /** Another one's, which is only read then; one of its own when absent. */
  readonly storage?: string;
  /** More of its `http` table: `tls`. */
  readonly http?: object;
  readonly auth?: object | undefined;
}

/** Starts Debian's docker-registry. */
export async function startDockerRegistry(
  options: DockerRegistryOptions = {},
): Promise<TestRegistry & { readonly storage: string }> {
  const program = await which("docker-registry");
  if (program === undefined) throw new Error("docker-registry is not installed (Debian package docker-registry)");
  const folder = await mkdtemp(join(tmpdir(), "berth-registry-"));
  const storage = options.storage ?? join(folder, "data");
  const host = `127.0.0.1:${await freePort()}`;
  const config = {
    version: "0.1",
    log: { level: "error" },
    storage: { filesystem: { rootdirectory: storage } },
    http: { addr: host, ...options.http },
    ...(options.auth === undefined ? {} : { auth: options.auth }),
  };
  await writeFile(join(folder, "config.yml"), JSON.stringify(config)); // JSON is YAML
  const argv = [program, "serve", join(folder, "config.yml")] as const;
  const child = await spawn({ argv: [...argv], env: {}, stdio: ["null", "null", "null"] });
  for (let tries = 0; !(await takesConnections(host)); tries += 1) {
    if (tries > 400) throw new Error("docker-registry did not come up");
    await sleep(25);
  }
  return {
    host,
    storage,
    async putBlob(repository, digest, body) {
      const started = await fetch(`http://${host}/v2/${repository}/blobs/uploads/`, { method: "POST" });
      const location = started.headers.get("location") ?? "";
      await put(`${location}&digest=${digest}`, "application/octet-stream", body);
    },
    async putManifest(repository, name, mediaType, body) {
      await put(`http://${host}/v2/${repository}/manifests/${name}`, mediaType, body);
    },
    async [Symbol.asyncDispose]() {
      child.kill(constants.signals.SIGKILL);
      await child.exited;
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function takesConnections(address: string): Promise<boolean> {
  const [host = "", port = ""] = address.split(":");
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect(Number(port), host, () => resolve(true)).on("error", () => resolve(false));
  return await promise.finally(() => socket.destroy());
}

/** A port of loopback that nobody listens on. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
  return port;
}

/** One request as a handler of the fake registry sees it. */
export interface FakeRequest {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Answers as a well-behaved registry would. */
  readonly proceed: () => void;
}

/** A registry that does what it is told, over plain HTTP on loopback. */
export interface FakeRegistry extends TestRegistry {
  /** Everything that was asked: `GET /v2/…`. */
  readonly requests: { readonly line: string; readonly headers: IncomingMessage["headers"] }[];
  push(repository: string, tag: string, image: TestImage): void;
  putManifest(repository: string, name: string, mediaType: string, body: Buffer): void;
  putBlob(repository: string, digest: string, body: Buffer): void;
  /** Looks at each request before it is answered. */
  intercept: ((request: FakeRequest) => void) | undefined;
}

function sendBlob(request: IncomingMessage, response: ServerResponse, blob: Buffer): void {
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
  const offset = Number(range?.[1] ?? 0);
  const end = Number(range?.[2] || blob.length - 1) + 1;
  const headers = { "accept-ranges": "bytes", "content-length": end - offset };
  if (range === null) response.writeHead(200, headers);
  else response.writeHead(206, { ...headers, "content-range": `bytes ${offset}-${end - 1}/${blob.length}` });
  response.end(blob.subarray(offset, end));
}

/** Starts a fake registry on a free port. */
export async function startFakeRegistry(): Promise<FakeRegistry> {
  const manifests = new Map<string, { mediaType: string; body: Buffer }>();
  const blobs = new Map<string, Buffer>();
  const requests: FakeRegistry["requests"] = [];

  function answer(request: IncomingMessage, response: ServerResponse): void {
    const path = (request.url ?? "").replace(/\?.*/, "");
    const manifest = manifests.get(path);
    const blob = blobs.get(path);
    if (manifest !== undefined) {
      response.writeHead(200, { "content-type": manifest.mediaType, "docker-content-digest": sha256(manifest.body) });
      response.end(manifest.body);
    } else if (blob === undefined) {
      response.writeHead(404, { "content-type": "application/json" });
      response.end('{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}');
    } else sendBlob(request, response, blob);
  }

  const server = createServer((request, response) => {
    requests.push({ line: `${request.method} ${request.url}`, headers: request.headers });
    const proceed = (): void => answer(request, response);
    if (registry.intercept === undefined) proceed();
    else registry.intercept({ request, response, proceed });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const registry: FakeRegistry = {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    intercept: undefined,
    putManifest(repository, name, mediaType, body) {
      for (const reference of [name, sha256(body)])
        manifests.set(`/v2/${repository}/manifests/${reference}`, { mediaType, body });
    },
    putBlob(repository, digest, body) {
      blobs.set(`/v2/${repository}/blobs/${digest}`, body);
    },
    push(repository, tag, image) {
      for (const [digest, blob] of image.blobs) this.putBlob(repository, digest, blob);
      this.putManifest(repository, tag, image.mediaType, image.manifest);
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
    },
  };
  return registry;
}

/** A node below `directory` without policies and without places of signatures. */
export function noTrust(directory: string): TrustConfig {
  const absent = join(directory, "no-trust");
  return { policyPath: "", namespacePolicies: absent, registriesDirectory: absent };
}

/** `team/app` at a registry on loopback, over plain HTTP. */
export function plainEndpoint(host: string): Endpoint {
  return {
    host,
    address: host,
    schemes: ["http"],
    apiPath: "/v2",
    repository: "team/app",
    query: "",
    headers: {},
    isMirror: false,
    canResolve: true,
    tls: { isVerified: true, authorities: [], clientCertificates: [] },
    credentials: undefined,
    connectTimeoutMs: undefined,
  };
}

/** What goes with it. */
export function plainNetwork(host: string): NetworkSettings {
  return { insecureHosts: [host], proxies: { httpProxy: "", httpsProxy: "", noProxy: "" }, authorityFiles: [] };
}

/** A logger that keeps its lines. */
export function createTestLogger(): Logger & { readonly lines: { level: string; fields: object; text: string }[] } {
  const lines: { level: string; fields: object; text: string }[] = [];
  const at =
    (level: string) =>
    (fields: object, text: string): void => {
      lines.push({ level, fields, text });
    };
  const logger = {
    lines,
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    child: () => logger,
  };
  return logger;
}

/** A call for tests. */
export function createTestCall(signal: AbortSignal = new AbortController().signal): Call {
  return { requestId: "test", rpc: "Test", signal, log: createTestLogger() };
}
