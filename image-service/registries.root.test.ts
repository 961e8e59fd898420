import { createHash, createPrivateKey, sign, X509Certificate } from "node:crypto";
import { once } from "node:events";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import { type AddressInfo, connect } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";

import { Code, CriError, type cri, loadJsonCodecs } from "../cri-api/index.ts";
import * as native from "../native/index.ts";
import { createImageService, examineRegistries, type ImageService, type RegistriesConfig } from "./index.ts";
import {
  createTestCall,
  createTestLogger,
  freePort,
  makeImage,
  makeTar,
  noTrust,
  pushToRegistry,
  registryFilesIn,
  startDockerRegistry,
  startFakeRegistry,
} from "./testing.ts";

// How registries are reached, by the files and environment of a node: against docker-registry with TLS and each kind of
// authentication, a token server and a proxy of this file's own, all on loopback.

const user = { username: "harbour", password: "pässword:1" };
const htpasswd = "harbour:$2b$05$abcdefghijklmnopqrstuubu/A6pxK.QBYYBGHElREFLjR3eHYgkK\n";
const encoded = Buffer.from(`${user.username}:${user.password}`).toString("base64");
const secrets = [user.password, encoded, "helper-s3cret"];
const image = makeImage([makeTar([{ name: "file", content: "x" }])]);
const codecs = loadJsonCodecs();
const emptyAuth = { username: "", password: "", auth: "", serverAddress: "", identityToken: "", registryToken: "" };
const spec = (name: string): cri.ImageSpec => ({
  image: name,
  annotations: {},
  userSpecifiedImage: "",
  runtimeHandler: "",
  imageRef: "",
});

let keys: string;
let scratch: string;
let cleanup: AsyncDisposableStack;
let files: RegistriesConfig;
let log: ReturnType<typeof createTestLogger>;
/** The plain registry that holds the image; the others serve its storage. */
let store: Awaited<ReturnType<typeof startDockerRegistry>>;

async function openssl(...argv: string[]): Promise<void> {
  const env = { PATH: "/usr/bin:/bin", HOME: keys };
  const { status, stderr } = await native.run({
    argv: ["/usr/bin/openssl", ...argv],
    env,
    signal: AbortSignal.timeout(60_000),
  });
  if (status.kind !== "exited" || status.code !== 0) throw new Error(stderr.toString());
}

async function makeCertificate(name: string, ...more: string[]): Promise<void> {
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
  const output = ["-keyout", join(keys, `${name}.key`), "-out", join(keys, `${name}.crt`)];
  await openssl("req", "-x509", ...curve, "-subj", `/CN=${name}`, ...output, ...more);
}

beforeAll(async () => {
  keys = await mkdtemp(join(tmpdir(), "berth-keys-"));
  await makeCertificate("authority");
  const signed = ["-CA", join(keys, "authority.crt"), "-CAkey", join(keys, "authority.key")];
  await makeCertificate("server", ...signed, "-addext", "subjectAltName=IP:127.0.0.1,DNS:registry.example");
  await makeCertificate("client", ...signed);
  await writeFile(join(keys, "htpasswd"), htpasswd);
  store = await startDockerRegistry();
  await pushToRegistry(store, "team/app:v1", image);
});
afterAll(async () => {
  await store[Symbol.asyncDispose]();
  await rm(keys, { recursive: true, force: true });
});
beforeEach(async () => {
  scratch = await mkdtemp(join(tmpdir(), "berth-registries-"));
  cleanup = new AsyncDisposableStack();
  cleanup.defer(() => rm(scratch, { recursive: true, force: true }));
  files = registryFilesIn(join(scratch, "etc"));
  log = createTestLogger();
});
afterEach(async () => {
  await cleanup.disposeAsync();
});

async function open(more: Partial<RegistriesConfig> = {}): Promise<ImageService> {
  const config = {
    root: join(scratch, "root"),
    registries: { ...files, ...more },
    trust: noTrust(scratch),
    retry: { attempts: 2, baseDelayMs: 5, maxDelayMs: 50, idleTimeoutMs: 20_000 },
    workerIdleMs: 60_000,
  };
  return cleanup.use(await createImageService({ config, log, host: native }));
}

async function write(path: string, content: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, content);
}

interface PullOptions {
  readonly auth?: Partial<cri.AuthConfig>;
  readonly namespace?: string;
}

/** Pulls, and makes room for the next pull of the same image. */
async function pull(
  service: ImageService,
  name: string,
  { auth, namespace = "default" }: PullOptions = {},
): Promise<void> {
  const { imageRef } = await service.pullImage(createTestCall(), {
    image: spec(name),
    auth: auth === undefined ? null : { ...emptyAuth, ...auth },
    sandboxConfig: codecs.PodSandboxConfig.fromJson({ metadata: { namespace } }),
  });
  expect(imageRef).toBe(image.id);
  await service.removeImage(createTestCall(), { image: spec(image.id) });
}

async function refusal(work: Promise<unknown>): Promise<CriError> {
  const thrown: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(thrown instanceof CriError)) throw new Error(`expected a CriError, got ${String(thrown)}`);
  for (const secret of secrets) expect(thrown.message).not.toContain(secret);
  return thrown;
}

/** docker-registry over TLS, on the storage of the plain one. */
async function startTls(options: { clients?: boolean; auth?: object } = {}): Promise<string> {
  const tls = {
    certificate: join(keys, "server.crt"),
    key: join(keys, "server.key"),
    ...(options.clients ? { clientcas: [join(keys, "authority.crt")] } : {}),
  };
  const registry = await startDockerRegistry({ storage: store.storage, http: { tls }, auth: options.auth });
  return cleanup.use(registry).host;
}

async function trust(host: string, ...names: readonly string[]): Promise<void> {
  const [directory = ""] = files.certsDirs;
  await write(join(directory, host, "ca.crt"), await readFile(join(keys, "authority.crt"), "utf8"));
  for (const name of names) {
    const from = name.endsWith("cert") ? name.replace("cert", "crt") : name;
    await write(join(directory, host, name), await readFile(join(keys, from), "utf8"));
  }
}

const basicAuth = (): object => ({ htpasswd: { realm: "some", path: join(keys, "htpasswd") } });

describe("TLS", () => {
  test("a certificate counts once its authority lies in certs.d, and no longer when it is gone", async () => {
    const host = await startTls();
    const service = await open();
    const refused = await refusal(pull(service, `${host}/team/app:v1`));
    expect(refused.code).toBe(Code.Unknown);
    expect(refused.message).toMatch(/^RegistryUnavailable: .*certificate/);
    await trust(host);
    await pull(service, `${host}/team/app:v1`);
    await pull(service, `${host.replace("127.0.0.1", "127.1")}/team/app:v1`); // the same host
    await rm(join(files.certsDirs[0] ?? "", host), { recursive: true });
    expect((await refusal(pull(service, `${host}/team/app:v1`))).message).toContain("certificate");
  });

  test("a system authority counts, and those that Node brings do not replace it", async () => {
    const host = await startTls();
    await pull(await open({ authorityFiles: ["/absent", join(keys, "authority.crt")] }), `${host}/team/app:v1`);
  });

  test("a client certificate is shown to the host that it is for", async () => {
    const host = await startTls({ clients: true });
    await trust(host);
    const service = await open();
    await refusal(pull(service, `${host}/team/app:v1`));
    await trust(host, "client.cert", "client.key");
    await pull(service, `${host}/team/app:v1`);
  });

  test("insecure takes any certificate, and plain HTTP where nobody speaks TLS", async () => {
    const host = await startTls();
    await write(
      files.confFile,
      [host, store.host].map((location) => `[[registry]]\nlocation = "${location}"\ninsecure = true\n`).join(""),
    );
    const service = await open();
    await pull(service, `${host}/team/app:v1`);
    await pull(service, `${store.host}/team/app:v1`);
  });
});

describe("credentials", () => {
  let host: string;
  beforeEach(async () => {
    host = await startTls({ auth: basicAuth() });
    await trust(host);
  });
  const authFile = (auth = encoded): string => JSON.stringify({ auths: { [`${host}/team`]: { auth } } });
  const name = (): string => `${host}/team/app:v1`;

  test("come from the request, or from auth.json by the longest key; the request's win", async () => {
    const service = await open();
    expect((await refusal(pull(service, name()))).code).toBe(Code.Unauthenticated);
    await pull(service, name(), { auth: user });
    await write(files.authFiles[0]?.path ?? "", authFile());
    await pull(service, name());
    const wrong = { auth: { username: "harbour", password: "wrong" } };
    expect((await refusal(pull(service, name(), wrong))).code).toBe(Code.Unauthenticated);
  });

  test("a broken auth.json leaves what it said in force, loudly and without repeating it", async () => {
    const path = files.authFiles[0]?.path ?? "";
    await write(path, authFile());
    const service = await open();
    await pull(service, name());
    await write(path, authFile().slice(0, -1));
    await pull(service, name());
    expect(service.registryProblems()).toEqual([`${path}: it is not JSON`]);
    expect(log.lines.filter(({ level }) => level === "error")).toHaveLength(1);
    await write(path, "{}");
    await refusal(pull(service, name()));
    expect(service.registryProblems()).toEqual([]);
    for (const secret of secrets) expect(JSON.stringify(log.lines)).not.toContain(secret);
  });

  test("come from a credential helper, which gets the host and a bare environment", async () => {
    const helper = join(files.helperEnvironment.PATH, "docker-credential-test");
    await write(
      helper,
      `#!/bin/sh\n[ "$1" = get ] || exit 2\nserver=$(/bin/cat)\n/usr/bin/env > ${scratch}/env\n[ "$server" = "${host}" ] || exit 3\nprintf '{"ServerURL":"%s","Username":"harbour","Secret":"pässword:1"}' "$server"\n`,
    );
    await chmod(helper, 0o755);
    await write(files.confFile, 'credential-helpers = ["test", "containers-auth.json"]\n');
    await pull(await open(), name());
    const names = (await readFile(join(scratch, "env"), "utf8")).split("\n").map((line) => line.split("=", 1)[0] ?? "");
    expect(names.filter((each) => !["", "PATH", "HOME", "PWD", "_", "SHLVL", "OLDPWD"].includes(each))).toEqual([]);
  });

  test("of a pod's namespace are used once, for that namespace alone", async () => {
    const directory = files.namespacedAuthDir ?? "";
    const hash = createHash("sha256").update(`${host}/team/app`).digest("hex");
    await write(join(directory, `blue-${hash}.json`), authFile());
    const service = await open();
    await refusal(pull(service, name(), { namespace: "red" }));
    await pull(service, name(), { namespace: "blue" });
    expect(await readdir(directory)).toEqual(["in-use"]);
    expect(await readdir(join(directory, "in-use"))).toEqual([]);
    await refusal(pull(service, name(), { namespace: "blue" }));
    await refusal(pull(service, name(), { namespace: "../blue" }));
    const spelled = host.replace("127.0.0.1", "127.1");
    const spelledHash = createHash("sha256").update(`${spelled}/team/app`).digest("hex");
    await write(join(directory, `blue-${spelledHash}.json`), authFile());
    await pull(service, `${spelled}/team/app:v1`, { namespace: "blue" });
  });

  test("for a mirror are those of the node for the mirror, and never the request's", async () => {
    await write(
      files.confFile,
      `[[registry]]\nlocation = "registry.example"\n[[registry.mirror]]\nlocation = "${host}"\n`,
    );
    const service = await open();
    const refused = await refusal(pull(service, "registry.example/team/app:v1", { auth: user }));
    expect(refused.message).toContain(`mirror "${host}": authentication required`);
    await write(files.authFiles[0]?.path ?? "", authFile());
    await pull(service, "registry.example/team/app:v1");
    await rm(files.authFiles[0]?.path ?? "");
    await pull(service, "registry.example/team/app:v1", { auth: { ...user, serverAddress: `https://${host}` } });
  });
});

describe("a token server on another host", () => {
  let realm: string;
  let host: string;
  const asked: IncomingMessage[] = [];

  /** What docker-registry takes for a token: a JWT signed by a certificate of its bundle. */
  function makeToken(scope: string): string {
    const [, repository = "", actions = ""] = /^repository:(.*):(.*)$/.exec(scope) ?? [];
    const certificate = new X509Certificate(server.certificate).raw.toString("base64");
    const nowS = Math.floor(Date.now() / 1000);
    const claims = { iss: "test", aud: "registry", sub: "", nbf: nowS - 10, iat: nowS - 10, exp: nowS + 300, jti: "1" };
    const access = [{ type: "repository", name: repository, actions: actions.split(",") }];
    const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
    const text = `${part({ typ: "JWT", alg: "ES256", x5c: [certificate] })}.${part({ ...claims, access })}`;
    const key = { key: createPrivateKey(server.key), dsaEncoding: "ieee-p1363" as const };
    return `${text}.${sign("sha256", Buffer.from(text), key).toString("base64url")}`;
  }
  const server = { certificate: "", key: "" };

  beforeEach(async () => {
    asked.length = 0;
    server.certificate = await readFile(join(keys, "server.crt"), "utf8");
    server.key = await readFile(join(keys, "server.key"), "utf8");
    const tokens = createHttpsServer({ cert: server.certificate, key: server.key }, (request, response) => {
      asked.push(request);
      const { searchParams } = new URL(request.url ?? "", "https://x");
      if (request.headers.authorization !== `Basic ${encoded}`) return void response.writeHead(401).end();
      response.end(JSON.stringify({ token: makeToken(searchParams.get("scope") ?? ""), expires_in: 300 }));
    });
    await new Promise<void>((resolve) => tokens.listen(0, "127.0.0.1", resolve));
    cleanup.defer(() => {
      tokens.close();
      tokens.closeAllConnections();
    });
    realm = `https://127.0.0.1:${(tokens.address() as AddressInfo).port}/token`;
    const token = { realm, service: "registry", issuer: "test", rootcertbundle: join(keys, "authority.crt") };
    host = await startTls({ auth: { token } });
  });

  test("gets the credentials of a registry that has proved itself, once for two pulls", async () => {
    await trust(host);
    const service = await open();
    await refusal(pull(service, `${host}/team/app:v1`));
    expect(asked.map(({ headers }) => headers.authorization)).toEqual([undefined]);
    await pull(service, `${host}/team/app:v1`, { auth: user });
    await pull(service, `${host}/team/app:v1`, { auth: user });
    expect(asked).toHaveLength(2);
    expect(asked[1]?.url).toBe("/token?service=registry&scope=repository%3Ateam%2Fapp%3Apull&account=harbour");
    await refusal(pull(service, `${host}/team/app:v1`, { auth: { ...user, password: "wrong" } }));
    for (const secret of secrets) expect(JSON.stringify(log.lines)).not.toContain(secret);
  });

  test("gets none from one that has not: who answers there may be anybody", async () => {
    await write(files.confFile, `[[registry]]\nlocation = "${host}"\ninsecure = true\n`);
    const service = await open();
    const { message, code } = await refusal(pull(service, `${host}/team/app:v1`, { auth: user }));
    expect(code).toBe(Code.Unauthenticated);
    expect(message).toContain("no verified TLS vouches");
    expect(asked).toEqual([]);
  });
});

describe("containerd's hosts.toml", () => {
  test("names mirrors with paths, headers and authorities, and the registry is asked last", async () => {
    const fake = cleanup.use(await startFakeRegistry());
    const host = await startTls();
    const directory = join(files.hostsDir ?? "", host.replace(/:(\d+)$/, "_$1_"));
    await write(join(directory, "authority.pem"), await readFile(join(keys, "authority.crt"), "utf8"));
    await write(
      join(directory, "hosts.toml"),
      `ca = "authority.pem"\n[host."http://${fake.host}/prefix"]\n[host."http://${fake.host}/prefix".header]\nx-from = "berth"\n`,
    );
    const service = await open();
    await pull(service, `${host}/team/app:v1`);
    expect(fake.requests[0]?.line).toBe(`GET /prefix/v2/team/app/manifests/v1?ns=${encodeURIComponent(host)}`);
    expect(fake.requests[0]?.headers["x-from"]).toBe("berth");
  });

  test("has headers that are for its host alone, not for where that leads", async () => {
    const [front, storage] = [cleanup.use(await startFakeRegistry()), cleanup.use(await startFakeRegistry())];
    for (const fake of [front, storage]) fake.push("team/app", "v1", image);
    front.intercept = ({ request, response, proceed }) => {
      if (!request.url?.includes("/blobs/")) return proceed();
      return response.writeHead(307, { location: `http://${storage.host}${request.url}` }).end();
    };
    await write(files.confFile, `[[registry]]\nlocation = "${storage.host}"\ninsecure = true\n`);
    const text = `server = "http://${front.host}"\n[header]\nauthorization = "Bearer header-s3cret"\n`;
    await write(join(files.hostsDir ?? "", "registry.example/hosts.toml"), text);
    await pull(await open(), "registry.example/team/app:v1");
    const shown = ({ requests }: typeof front): unknown[] => requests.map(({ headers }) => headers.authorization);
    expect(new Set(shown(front))).toEqual(new Set(["Bearer header-s3cret"]));
    expect(new Set(shown(storage))).toEqual(new Set([undefined]));
    expect(JSON.stringify(log.lines)).not.toContain("header-s3cret");
  });

  test("of _default is for registries that have none, and gives way to registries.conf", async () => {
    const host = await startTls();
    const directory = join(files.hostsDir ?? "", "_default");
    await write(join(directory, "authority.crt"), await readFile(join(keys, "authority.crt"), "utf8"));
    await write(join(directory, "hosts.toml"), `server = "https://${host}"\nca = "authority.crt"\n`);
    const service = await open();
    await pull(service, "registry.example/team/app:v1");
    await write(files.confFile, '[[registry]]\nlocation = "registry.example"\nblocked = true\n');
    expect((await refusal(pull(service, "registry.example/team/app:v1"))).code).toBe(Code.PermissionDenied);
  });
});

/** A proxy that leads every tunnel to one port of loopback, and every plain request to another. */
async function startProxy(
  tunnelPort: number,
  plainHost: string,
): Promise<{ address: string; seen: string[] } & Disposable> {
  const seen: string[] = [];
  const forward = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { host, pathname } = new URL(request.url ?? "");
    seen.push(`${request.method} ${host} ${request.headers["proxy-authorization"]}`);
    const headers = { accept: request.headers.accept ?? "" };
    const answer = await fetch(`http://${plainHost}${pathname}`, { headers });
    response.writeHead(answer.status, { "content-type": answer.headers.get("content-type") ?? "" });
    response.end(Buffer.from(await answer.arrayBuffer()));
  };
  const proxy = createHttpServer((request, response) => {
    forward(request, response).catch(() => response.destroy());
  });
  proxy.on("connect", (request, client) => {
    seen.push(`CONNECT ${request.url} ${request.headers["proxy-authorization"]}`);
    const upstream = connect(tunnelPort, "127.0.0.1", () => {
      client.write("HTTP/1.1 200 OK\r\n\r\n");
      upstream.pipe(client).pipe(upstream);
    });
    upstream.on("error", () => client.destroy());
    client.on("error", () => upstream.destroy());
  });
  const stop = (): void => {
    proxy.close();
    proxy.closeAllConnections();
  };
  cleanup.defer(stop);
  proxy.listen(0, "127.0.0.1");
  await once(proxy, "listening");
  return { address: `127.0.0.1:${(proxy.address() as AddressInfo).port}`, seen, [Symbol.dispose]: stop };
}

describe("a proxy of the environment", () => {
  test("carries TLS as a tunnel and plain HTTP as it is, with its own credentials, and is named in errors", async () => {
    const proxy = await startProxy(Number((await startTls()).split(":")[1]), store.host);
    const { address, seen } = proxy;
    await trust("registry.example");
    const url = `http://me:proxy-s3cret@${address}`;
    const service = await open({ proxies: { httpProxy: url, httpsProxy: url, noProxy: "other.example" } });
    await pull(service, "registry.example/team/app:v1");
    const authorization = `Basic ${Buffer.from("me:proxy-s3cret").toString("base64")}`;
    expect(new Set(seen)).toEqual(new Set([`CONNECT registry.example:443 ${authorization}`]));

    seen.length = 0;
    const hostDirectory = join(files.hostsDir ?? "", "plain.example");
    await write(join(hostDirectory, "hosts.toml"), 'server = "http://plain.example"\n');
    await pull(service, "plain.example/team/app:v1");
    expect(new Set(seen)).toEqual(new Set([`GET plain.example ${authorization}`]));

    proxy[Symbol.dispose]();
    const { message } = await refusal(pull(service, "registry.example/team/app:v1"));
    expect(message).toContain(`through the proxy "${address}"`);
    expect(message + JSON.stringify(log.lines)).not.toContain("proxy-s3cret");
  });
});

describe("registries.conf", () => {
  test("is read at each pull; a broken edit changes nothing, and says so", async () => {
    const rule = `[[registry]]\nprefix = "registry.example/x"\nlocation = "${store.host}/team"\ninsecure = true\n`;
    await write(files.confFile, rule);
    const service = await open();
    await pull(service, "registry.example/x/app:v1");
    await write(files.confFile, `${rule}blocked = maybe\n`);
    await pull(service, "registry.example/x/app:v1");
    expect(service.registryProblems()).toEqual([expect.stringContaining(`${files.confFile}: line 5: `)]);
    await write(join(files.confDir, "10-more.conf"), '[[registry]]\nprefix = "registry.example/x"\nblocked = true\n');
    await write(files.confFile, rule);
    expect((await refusal(pull(service, "registry.example/x/app:v1"))).code).toBe(Code.PermissionDenied);
    expect(service.registryProblems()).toEqual([]);
  });

  test("that has never been good lets nothing be pulled: what it blocks is not known", async () => {
    await write(files.confFile, "[registries.search]\nregistries = []\n");
    const service = await open();
    const { code, message } = await refusal(pull(service, `${store.host}/team/app:v1`));
    expect(code).toBe(Code.FailedPrecondition);
    expect(message).toContain("version 1");
  });

  test("gives short names their registries, for pulls and for the images that are here", async () => {
    const port = await freePort();
    await write(
      files.confFile,
      `unqualified-search-registries = ["127.0.0.1:${port}", "${store.host}", "127.0.0.1:${port}/last"]\n` +
        `[[registry]]\nlocation = "${store.host}"\ninsecure = true\n[aliases]\nbox = "${store.host}/team/app"\n`,
    );
    const service = await open();
    await pull(service, "box:v1");
    await pull(service, "team/app:v1");
    await service.pullImage(createTestCall(), { image: spec("team/app:v1"), auth: null, sandboxConfig: null });
    expect(service.resolveImage("box:v1")?.id).toBe(image.id);
    expect(service.resolveImage("team/app:v1")?.repoTags).toEqual([`${store.host}/team/app:v1`]);
    const { message } = await refusal(pull(service, "team/none:v1"));
    expect(message).toMatch(/^RegistryUnavailable: /);
    expect(message).toContain(`host "127.0.0.1:${port}": connection refused`);
    expect(message).toContain(`host "${store.host}": not found (404`);
  });
});

test("all files can be examined, also of hosts that nobody has pulled from, and that changes nothing", async () => {
  const directory = files.namespacedAuthDir ?? "";
  await write(join(directory, "in-use", "left.json"), "{}");
  const parts = { config: files, host: native, log };
  expect(await examineRegistries(parts)).toEqual([]);
  await trust("one.example", "client.key");
  await write(join(files.certsDirs[0] ?? "", "two.example", "ca.crt"), "none");
  await write(join(files.hostsDir ?? "", "three.example", "hosts.toml"), 'ca = "absent.pem"');
  await write(files.confFile, "short-name-mode = 1");
  await write(files.authFiles[0]?.path ?? "", "{");
  const problems = (await examineRegistries(parts)).map((problem) => problem.replace(/^.*?\/etc\//, ""));
  expect(problems.toSorted()).toEqual([
    "auth.json: it is not JSON",
    "certs.d/one.example/client.key: its certificate client.cert is missing",
    "certs.d/two.example/ca.crt: holds no certificate",
    expect.stringMatching(/^hosts.d\/three.example\/hosts.toml: names .*absent.pem, which is not there$/),
    expect.stringContaining("registries.conf: short-name-mode"),
  ]);
  expect(await readdir(join(directory, "in-use"))).toEqual(["left.json"]);
});
