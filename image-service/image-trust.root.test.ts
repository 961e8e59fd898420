import { createPrivateKey, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";

import { Code, CriError, loadJsonCodecs } from "../cri-api/index.ts";
import * as native from "../native/index.ts";
import { createImageService, type ImageService } from "./index.ts";
import {
  createTestCall,
  createTestLogger,
  makeImage,
  makeTar,
  pushToRegistry,
  sha256,
  startDockerRegistry,
  startFakeRegistry,
  type TestRegistry,
  type TestRule,
  writeRegistries,
} from "./testing.ts";

const codecs = loadJsonCodecs();
const never = new AbortController().signal;
const indexType = "application/vnd.oci.image.index.v1+json";
const fastRetry = { attempts: 2, baseDelayMs: 5, maxDelayMs: 200, idleTimeoutMs: 2000 };

let keys: string;
let scratch: string;
let cleanup: AsyncDisposableStack;

/** Runs gpg with the keys that the tests sign with. */
async function gpg(args: readonly string[], input = ""): Promise<Buffer> {
  const result = await native.run({
    argv: ["/usr/bin/gpg", "--homedir", keys, "--batch", "--quiet", "--no-options", ...args],
    env: {},
    input,
    signal: AbortSignal.timeout(30_000),
  });
  if (result.status.kind !== "exited" || result.status.code !== 0) throw new Error(result.stderr.toString("utf8"));
  return result.stdout;
}

async function makeKey(email: string, options: readonly string[] = [], expiry = "0"): Promise<void> {
  await gpg([...options, "--passphrase", "", "--quick-generate-key", email, "ed25519", "sign", expiry]);
}

beforeAll(async () => {
  keys = await mkdtemp(join(tmpdir(), "berth-keys-"));
  await makeKey("vendor@example.com");
  await makeKey("other@example.com");
  await makeKey("old@example.com", ["--faked-system-time", "20200101T000000!"], "2020-02-01");
  await makeKey("lost@example.com");
});
afterAll(async () => {
  await native.run({
    argv: ["/usr/bin/gpgconf", "--homedir", keys, "--kill", "all"],
    env: {},
    signal: AbortSignal.timeout(10_000),
  });
  await rm(keys, { recursive: true, force: true });
});
beforeEach(async () => {
  scratch = await mkdtemp(join(tmpdir(), "berth-trust-"));
  cleanup = new AsyncDisposableStack();
  cleanup.defer(() => rm(scratch, { recursive: true, force: true }));
});
afterEach(async () => {
  await cleanup.disposeAsync();
});

/** A node's image service; policies and places of signatures are files below `scratch`. */
async function openService(rules: Readonly<Record<string, TestRule>>): Promise<ImageService> {
  const registries = await writeRegistries(join(scratch, "etc"), rules);
  const trust = {
    policyPath: join(scratch, "policy.json"),
    namespacePolicies: join(scratch, "policies"),
    registriesDirectory: join(scratch, "registries.d"),
  };
  const config = { root: join(scratch, "root"), registries, trust, retry: fastRetry, workerIdleMs: 200 };
  return cleanup.use(await createImageService({ config, log: createTestLogger(), host: native }));
}

async function write(name: string, content: string | Uint8Array): Promise<string> {
  const path = join(scratch, name);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, content);
  return path;
}

async function writePolicy(requirements: readonly object[], name = "policy.json"): Promise<void> {
  await write(name, JSON.stringify({ default: requirements }));
}

async function pull(service: ImageService, image: string, namespace = "default"): Promise<string> {
  const sandboxConfig = codecs.PodSandboxConfig.fromJson({ metadata: { namespace } });
  const { imageRef } = await service.pullImage(createTestCall(), {
    image: { image, annotations: {}, userSpecifiedImage: "", runtimeHandler: "", imageRef: "" },
    auth: null,
    sandboxConfig,
  });
  return imageRef ?? "";
}

async function failure(work: Promise<unknown>): Promise<CriError> {
  const thrown = await work.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (!(thrown instanceof CriError)) throw new Error(`not refused: ${String(thrown)}`);
  return thrown;
}

/** A refusal as kubelet reads it. */
async function refusal(work: Promise<unknown>): Promise<string> {
  const { code, message } = await failure(work);
  expect(code).toBe(Code.Unknown);
  expect(message).toMatch(/^SignatureValidationFailed: /);
  return message;
}

async function use(
  service: ImageService,
  id: string,
  userSpecifiedImage: string,
  namespace = "default",
): Promise<void> {
  const image = service.resolveImage(id);
  if (image === undefined) throw new Error(`${id} is not there`);
  await service.requireAllowed({ image, userSpecifiedImage, namespace }, never);
}

function claim(type: string, digest: string, reference: string, more: object = {}): string {
  const critical = {
    type,
    image: { "docker-manifest-digest": digest },
    identity: { "docker-reference": reference },
    ...more,
  };
  return JSON.stringify({ critical, optional: { creator: "test", timestamp: 1_700_000_000 } });
}

const image = makeImage([makeTar([{ name: "hello", content: "hello" }])]);
const digest = sha256(image.manifest);

/** A registry that has the image as `a/b:1`, and a node that looks for signatures where `places` says. */
async function openNode(places: string): Promise<{ registry: TestRegistry; service: ImageService; name: string }> {
  const registry = cleanup.use(await startDockerRegistry());
  await pushToRegistry(registry, "a/b:1", image);
  await write("registries.d/default.yaml", `default-docker:\n  ${places}\n`);
  const service = await openService({ [registry.host]: { insecure: true } });
  return { registry, service, name: `${registry.host}/a/b:1` };
}

describe("policies", () => {
  test("without a policy of its own the node accepts every image, and one that is configured has to be there", async () => {
    await using registry = await startFakeRegistry();
    registry.push("a/b", "1", image);
    const service = await openService({ [registry.host]: { insecure: true } });
    expect(await refusal(pull(service, `${registry.host}/a/b:1`))).toContain('policy.json" is not there');
    await writePolicy([{ type: "insecureAcceptAnything" }]);
    expect(await pull(service, `${registry.host}/a/b:1`)).toBe(image.id);
  });

  test("a rejected image is refused before any registry is asked", async () => {
    await using registry = await startFakeRegistry();
    registry.push("a/b", "1", image);
    const service = await openService({ [registry.host]: { insecure: true } });
    await writePolicy([{ type: "reject" }]);
    expect(await refusal(pull(service, `${registry.host}/a/b:1`))).toContain("rejects");
    expect(registry.requests).toEqual([]);
  });

  test("a policy that cannot be understood refuses everything, and says where it is wrong", async () => {
    const service = await openService({});
    await write("policy.json", '{"default":[{"type":"insecureAcceptAnything","oops":1}]}');
    expect(await refusal(pull(service, "h.x/a:1"))).toContain("default.0.oops");
  });

  test("a namespace's own policy counts instead of the node's, when pulling and when running, and at once", async () => {
    await using registry = await startFakeRegistry();
    registry.push("a/b", "1", image);
    const name = `${registry.host}/a/b:1`;
    const service = await openService({ [registry.host]: { insecure: true } });
    await writePolicy([{ type: "insecureAcceptAnything" }]);
    await writePolicy([{ type: "reject" }], "policies/strict.json");
    await writePolicy([{ type: "reject" }], "strict.json"); // not to be reached as ../strict
    expect(await refusal(pull(service, name, "strict"))).toContain("rejects");
    expect(await pull(service, name, "lax")).toBe(image.id);
    expect(await pull(service, name, "../strict")).toBe(image.id);
    await use(service, image.id, name, "lax");
    expect(await refusal(use(service, image.id, name, "strict"))).toContain("cannot run image");
    await rm(join(scratch, "policies/strict.json"));
    await use(service, image.id, name, "strict");
  });

  test("callers with different policies do not share a pull", async () => {
    await using registry = await startFakeRegistry();
    registry.push("a/b", "1", image);
    const name = `${registry.host}/a/b:1`;
    const service = await openService({ [registry.host]: { insecure: true } });
    await writePolicy([{ type: "insecureAcceptAnything" }]);
    await writePolicy([{ type: "reject" }], "policies/strict.json");
    const [lax, strict] = await Promise.allSettled([pull(service, name, "lax"), pull(service, name, "strict")]);
    expect([lax.status, strict.status]).toEqual(["fulfilled", "rejected"]);
  });

  test("an image asked for by id runs if any name that it is known by may", async () => {
    await using registry = await startFakeRegistry();
    registry.push("good/x", "1", image);
    registry.push("bad/x", "1", image);
    const service = await openService({ [registry.host]: { insecure: true } });
    await writePolicy([{ type: "insecureAcceptAnything" }]);
    const bad = `${registry.host}/bad/x:1`;
    await pull(service, bad);
    const accept = [{ type: "insecureAcceptAnything" }];
    const transports = { docker: { [`${registry.host}/good`]: accept } };
    await write("policy.json", JSON.stringify({ default: [{ type: "reject" }], transports }));
    await refusal(use(service, image.id, image.id));
    await refusal(use(service, image.id, bad));
    await pull(service, `${registry.host}/good/x:1`);
    await use(service, image.id, image.id);
    await use(service, image.id, `${registry.host}/good/x:other`);
    await refusal(use(service, image.id, bad));
  });
});

describe("OpenPGP signatures", () => {
  let registry: TestRegistry;
  let service: ImageService;
  let name: string;

  beforeEach(async () => {
    ({ registry, service, name } = await openNode(`lookaside: file://${scratch}/signatures`));
    await trustKey("vendor@example.com");
  });

  async function trustKey(email: string, more: object = {}, exportArgs: readonly string[] = []): Promise<void> {
    const keyPath = await write("key.gpg", await gpg([...exportArgs, "--export", email]));
    await writePolicy([{ type: "signedBy", keyType: "GPGKeys", keyPath, ...more }]);
  }
  async function putSignature(index: number, signature: Uint8Array, subject: string = digest): Promise<void> {
    await write(`signatures/a/b@${subject.replace(":", "=")}/signature-${index}`, signature);
  }
  function signed(
    payload: string,
    email = "vendor@example.com",
    args: readonly string[] = ["--sign"],
  ): Promise<Buffer> {
    return gpg(["--local-user", email, "--output", "-", ...args], payload);
  }
  const good = (reference = name): string => claim("atomic container signature", digest, reference);

  test("an image that is signed is pulled, and runs without any network", async () => {
    await putSignature(1, await signed(good()));
    expect(await pull(service, name)).toBe(image.id);
    await rm(join(scratch, "signatures"), { recursive: true });
    await use(service, image.id, name);
    await service[Symbol.asyncDispose]();
    service = await openService({ [registry.host]: { insecure: true } });
    await use(service, image.id, name);
    expect(await readdir(join(scratch, "root/gpg"))).toEqual([]);
  });

  test("armored keys, keys in the policy and one of several key files are as good", async () => {
    await putSignature(1, await signed(good()));
    await trustKey("vendor@example.com", {}, ["--armor"]);
    await pull(service, name);
    const keyData = (await gpg(["--export", "vendor@example.com"])).toString("base64");
    await writePolicy([{ type: "signedBy", keyType: "GPGKeys", keyData }]);
    await use(service, image.id, name);
    const other = await write("other.gpg", await gpg(["--armor", "--export", "other@example.com"]));
    await writePolicy([{ type: "signedBy", keyType: "GPGKeys", keyPaths: [other, join(scratch, "key.gpg")] }]);
    await use(service, image.id, name);
  });

  test("without a signature nothing is stored", async () => {
    expect(await refusal(pull(service, name))).toContain("there is none");
    expect(service.resolveImage(name)).toBeUndefined();
  });

  test.each<[string, () => Promise<Buffer>, string]>([
    ["another key", () => signed(good(), "other@example.com"), "another key"],
    ["another name", () => signed(good("example.com/else:1")), "example.com/else:1"],
    ["another manifest", () => signed(claim("atomic container signature", sha256("x"), name)), "another manifest"],
    ["another type", () => signed(claim("cosign container image signature", digest, name)), "malformed"],
    ["a member nobody knows", () => signed(claim("atomic container signature", digest, name, { x: 1 })), "malformed"],
    ["a clear text", () => signed(good(), "vendor@example.com", ["--clearsign"]), "no signed message"],
    ["a signature apart", () => signed(good(), "vendor@example.com", ["--detach-sign"]), "no signed message"],
    ["no signature, but a message", () => gpg(["--output", "-", "--store"], good()), "no signed message"],
    [
      "two signers",
      () => signed(good(), "vendor@example.com", ["--local-user", "lost@example.com", "--sign"]),
      "another key",
    ],
    ["bytes", async () => Buffer.from("signature"), "no signed message"],
    ["nothing", async () => Buffer.alloc(0), "no signed message"],
  ])("a signature that is %s is none", async (_, make, why) => {
    await putSignature(1, await make());
    expect(await refusal(pull(service, name))).toContain(why);
  });

  test("a signature whose payload was changed is none", async () => {
    const message = await signed(good(), "vendor@example.com", ["--compress-algo", "none", "--sign"]);
    const at = message.indexOf("a/b:1");
    message.write("a/b:2", at);
    await putSignature(1, message);
    expect(await refusal(pull(service, name))).toContain("the signature is bad");
  });

  test("keys that have expired or are revoked sign nothing", async () => {
    const faked = ["--faked-system-time", "20200115T000000!", "--sign"];
    await putSignature(1, await signed(good(), "old@example.com", faked));
    await trustKey("old@example.com");
    expect(await refusal(pull(service, name))).toContain("the key has expired");
    await putSignature(1, await signed(good(), "lost@example.com"));
    const [fingerprint = ""] = /[0-9A-F]{40}/.exec((await gpg(["--list-keys", "lost@example.com"])).toString()) ?? [];
    const revocation = await readFile(join(keys, "openpgp-revocs.d", `${fingerprint}.rev`), "utf8");
    await gpg(["--import"], revocation.replace(/^:-----/m, "-----"));
    await trustKey("lost@example.com");
    expect(await refusal(pull(service, name))).toContain("the key is revoked");
  });

  test("one good signature among bad ones is enough, and every requirement wants its own", async () => {
    await putSignature(1, Buffer.from("bad"));
    await putSignature(2, await signed(good()));
    const both = ["vendor@example.com", "other@example.com"].map(async (email) => ({
      type: "signedBy",
      keyType: "GPGKeys",
      keyData: (await gpg(["--export", email])).toString("base64"),
    }));
    await writePolicy(await Promise.all(both));
    expect(await refusal(pull(service, name))).toContain("another key");
    await putSignature(3, await signed(good(), "other@example.com"));
    expect(await pull(service, name)).toBe(image.id);
  });

  test("a mirror's image is held against the name that its vendor signed", async () => {
    await putSignature(1, await signed(good("vendor.example/b:1")));
    expect(await refusal(pull(service, name))).toContain("vendor.example/b:1");
    const signedIdentity = { type: "remapIdentity", prefix: `${registry.host}/a`, signedPrefix: "vendor.example" };
    await trustKey("vendor@example.com", { signedIdentity });
    expect(await pull(service, name)).toBe(image.id);
    await use(service, image.id, name);
    await trustKey("vendor@example.com", {
      signedIdentity: { type: "exactReference", dockerReference: "vendor.example/b:2" },
    });
    await refusal(use(service, image.id, name));
  });

  test("pulled by digest, any tag of the repository may be signed", async () => {
    await putSignature(1, await signed(good()));
    expect(await pull(service, `${registry.host}/a/b@${digest}`)).toBe(image.id);
    await trustKey("vendor@example.com", { signedIdentity: { type: "matchExact" } });
    await refusal(pull(service, `${registry.host}/a/b@${digest}`));
  });

  test("the signature of an index stands for the manifests in it", async () => {
    const foreign = makeImage([makeTar([{ name: "x", content: "y" }])], { architecture: "s390x" });
    const indexDigest = await pushToRegistry(registry, "a/b:2", image, [foreign, image]);
    const two = `${registry.host}/a/b:2`;
    expect(await refusal(pull(service, two))).toContain("there is none");
    await putSignature(1, await signed(claim("atomic container signature", indexDigest, two)), indexDigest);
    expect(await pull(service, two)).toBe(image.id);
  });

  test("signatures are kept for a namespace that asks for them, also if the pulling one does not", async () => {
    await putSignature(1, await signed(good()));
    await write("policies/strict.json", await readFile(join(scratch, "policy.json")));
    await writePolicy([{ type: "insecureAcceptAnything" }]);
    await pull(service, name, "lax");
    await rm(join(scratch, "signatures"), { recursive: true });
    await use(service, image.id, name, "strict");
  });

  test("an image that was pulled before anybody asked for signatures gets them when it is pulled again", async () => {
    const policy = await readFile(join(scratch, "policy.json"));
    await writePolicy([{ type: "insecureAcceptAnything" }]);
    await pull(service, name);
    await write("policy.json", policy);
    await refusal(use(service, image.id, name));
    await refusal(pull(service, name));
    await putSignature(1, await signed(good()));
    await pull(service, name);
    await use(service, image.id, name);
  });

  test("signatures come over HTTP, past redirects; a server that fails is named", async () => {
    const signature = await signed(good());
    const seen: string[] = [];
    let status = 200;
    const server = createServer((request, response) => {
      seen.push(request.url ?? "");
      if (status !== 200) response.writeHead(status).end();
      else if (request.url?.startsWith("/old/")) response.writeHead(302, { location: request.url.slice(4) }).end();
      else if (request.url === `/a/b@${digest.replace(":", "=")}/signature-1`) response.end(signature);
      else response.writeHead(404).end();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    cleanup.defer(() => server.closeAllConnections());
    cleanup.defer(() => void server.close());
    const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}/old`;
    await write("registries.d/default.yaml", `docker:\n  ${registry.host}/a:\n    sigstore: ${base}\n`);
    status = 500;
    expect(await refusal(pull(service, name))).toMatch(/signatures cannot be read: .*answered 500/);
    status = 200;
    expect(await pull(service, name)).toBe(image.id);
    expect(seen.at(-1)).toMatch(/signature-2$/);
  });

  test("signatures that a registry keeps itself count, and those beside it do not", async () => {
    await using keeper = await startFakeRegistry();
    keeper.push("a/b", "1", image);
    const own = `${keeper.host}/a/b:1`;
    const content = (await signed(good(own))).toString("base64");
    const kept = { schemaVersion: 2, name: `${digest}@${"1".repeat(32)}`, type: "atomic", content };
    let signatures: unknown[] = [];
    keeper.intercept = ({ request, response, proceed }) => {
      const path = request.url ?? "";
      if (path === "/v2/") response.writeHead(200, { "x-registry-supports-signatures": "1" }).end("{}");
      else if (path === `/extensions/v2/a/b/signatures/${digest}`) response.end(JSON.stringify({ signatures }));
      else proceed();
    };
    const node = await openService({ [keeper.host]: { insecure: true } });
    await putSignature(1, await signed(good(own)));
    expect(await refusal(pull(node, own))).toContain("there is none");
    for (const unknown of [{ schemaVersion: 3 }, { type: "other" }]) {
      signatures = [{ ...kept, ...unknown }];
      expect(await refusal(pull(node, own))).toContain("there is none");
    }
    signatures = [{ ...kept, content: "%" }];
    expect(await refusal(pull(node, own))).toMatch(/signatures cannot be read: .*malformed at "signatures.0.content"/);
    signatures = [{ ...kept, content: (await signed(good(own), "other@example.com")).toString("base64") }, kept];
    expect(await pull(node, own)).toBe(image.id);
    await use(node, image.id, own);
  });

  test("files that contradict each other or are not understood are told", async () => {
    await write("registries.d/more.yaml", "default-docker:\n  lookaside: file:///x\n");
    expect(await refusal(pull(service, name))).toContain("once more");
    await write("registries.d/more.yaml", "docker:\n  h.x:\n    lookasid: file:///x\n");
    expect(await refusal(pull(service, name))).toContain('"more.yaml" is malformed at "docker.h.x');
    await write("registries.d/more.yaml", "a: &a [x]\nb: [*a, *a]\n");
    expect(await refusal(pull(service, name))).toContain('"more.yaml"');
  });
});

/** Pushes signatures as cosign does. */
async function attach(
  registry: TestRegistry,
  repository: string,
  signatures: readonly { readonly payload: string; readonly signature: string; readonly annotations?: object }[],
  subject: string = digest,
): Promise<void> {
  const config = Buffer.from("{}");
  await registry.putBlob(repository, sha256(config), config);
  const layers = [];
  for (const { payload, signature, annotations } of signatures) {
    const blob = Buffer.from(payload);
    await registry.putBlob(repository, sha256(blob), blob);
    layers.push({
      mediaType: "application/vnd.dev.cosign.simplesigning.v1+json",
      digest: sha256(blob),
      size: blob.length,
      annotations: { "dev.cosignproject.cosign/signature": signature, ...annotations },
    });
  }
  const mediaType = "application/vnd.oci.image.manifest.v1+json";
  const manifest = {
    schemaVersion: 2,
    mediaType,
    config: { mediaType: "application/vnd.oci.image.config.v1+json", digest: sha256(config), size: config.length },
    layers,
  };
  await registry.putManifest(
    repository,
    `${subject.replace(":", "-")}.sig`,
    mediaType,
    Buffer.from(JSON.stringify(manifest)),
  );
}

function pemOf(key: KeyObject): string {
  return key.export({ type: "spki", format: "pem" }).toString();
}

describe("sigstore signatures", () => {
  const pairs = {
    p256: generateKeyPairSync("ec", { namedCurve: "P-256" }),
    p384: generateKeyPairSync("ec", { namedCurve: "P-384" }),
    ed25519: generateKeyPairSync("ed25519"),
    rsa: generateKeyPairSync("rsa", { modulusLength: 2048 }),
  };
  let registry: TestRegistry;
  let service: ImageService;
  let name: string;

  beforeEach(async () => {
    ({ registry, service, name } = await openNode("use-sigstore-attachments: true"));
    await trustKey(pairs.p256.publicKey);
  });

  async function trustKey(key: KeyObject, more: object = {}): Promise<void> {
    const keyPath = await write("cosign.pub", pemOf(key));
    await writePolicy([{ type: "sigstoreSigned", keyPath, signedIdentity: { type: "matchRepository" }, ...more }]);
  }
  function signed(
    payload = claim("cosign container image signature", digest, `${registry.host}/a/b`),
    key: KeyObject = pairs.p256.privateKey,
  ): { payload: string; signature: string } {
    const algorithm = key.asymmetricKeyType === "ed25519" ? null : "sha256";
    return { payload, signature: sign(algorithm, Buffer.from(payload), key).toString("base64") };
  }

  test.each(Object.entries(pairs))(
    "an image that is signed with a key (%s) is pulled, and runs without any network",
    async (_, pair) => {
      await attach(registry, "a/b", [signed(undefined, pair.privateKey)]);
      await trustKey(pair.publicKey);
      expect(await pull(service, name)).toBe(image.id);
      await registry[Symbol.asyncDispose]();
      await use(service, image.id, name);
      await use(service, image.id, image.id);
    },
  );

  test("one key of several is enough", async () => {
    await attach(registry, "a/b", [signed()]);
    const keyDatas = [pairs.p384, pairs.p256].map(({ publicKey }) => Buffer.from(pemOf(publicKey)).toString("base64"));
    await writePolicy([{ type: "sigstoreSigned", keyDatas, signedIdentity: { type: "matchRepository" } }]);
    expect(await pull(service, name)).toBe(image.id);
  });

  test("attachments are read only where the node's configuration says so", async () => {
    await attach(registry, "a/b", [signed()]);
    await write("registries.d/default.yaml", "default-docker:\n  use-sigstore-attachments: false\n");
    expect(await refusal(pull(service, name))).toContain("there is none");
  });

  test("a tag is held against the policy unless that says otherwise, and cosign signs none", async () => {
    await attach(registry, "a/b", [signed()]);
    await trustKey(pairs.p256.publicKey, { signedIdentity: { type: "matchRepoDigestOrExact" } });
    expect(await refusal(pull(service, name))).toContain("it is for");
    await attach(registry, "a/b", [signed(claim("cosign container image signature", digest, name))]);
    expect(await pull(service, name)).toBe(image.id);
  });

  test.each<[string, () => { payload: string; signature: string }, string]>([
    ["made with another key", () => signed(undefined, pairs.p384.privateKey), "another key"],
    [
      "of another payload",
      () => ({ ...signed(), payload: claim("cosign container image signature", digest, "x/y") }),
      "another key",
    ],
    [
      "of another repository",
      () => signed(claim("cosign container image signature", digest, "example.com/a/b")),
      "example.com/a/b",
    ],
    [
      "of another manifest",
      () => signed(claim("cosign container image signature", sha256("x"), "x/y")),
      "another manifest",
    ],
    ["of another type", () => signed(claim("atomic container signature", digest, "x/y")), "malformed"],
    ["of no JSON", () => signed("{"), "not JSON"],
    ["empty", () => ({ ...signed(), signature: "" }), "another key"],
    ["no base64", () => ({ ...signed(), signature: "%%%" }), "another key"],
  ])("a signature that is %s is none", async (_, make, why) => {
    await attach(registry, "a/b", [make()]);
    expect(await refusal(pull(service, name))).toContain(why);
    expect(service.resolveImage(name)).toBeUndefined();
  });

  test("a certificate of an authority of the node's own counts, for whom it is made out to", async () => {
    const at = (file: string): string => join(scratch, file);
    const makeCertificate = async (certificate: string, ...more: readonly string[]): Promise<void> => {
      const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
      const output = ["-keyout", at(`${certificate}.key`), "-out", at(`${certificate}.pem`)];
      const request = ["req", "-x509", ...curve, "-subj", `/CN=${certificate}`, ...output, ...more];
      await native.run({ argv: ["/usr/bin/openssl", ...request], env: {}, signal: AbortSignal.timeout(30_000) });
    };
    await makeCertificate("root");
    const names = ["-addext", "extendedKeyUsage=codeSigning", "-addext", "subjectAltName=email:ci@example.com"];
    await makeCertificate("ci", "-CA", at("root.pem"), "-CAkey", at("root.key"), ...names);
    const signature = signed(undefined, createPrivateKey(await readFile(at("ci.key"))));
    const annotations = { "dev.sigstore.cosign/certificate": await readFile(at("ci.pem"), "utf8") };
    await attach(registry, "a/b", [{ ...signature, annotations }]);
    const trustIn = (subjectEmail: string): Promise<void> =>
      writePolicy([
        {
          type: "sigstoreSigned",
          pki: { caRootsPath: at("root.pem"), subjectEmail },
          signedIdentity: { type: "matchRepository" },
        },
      ]);
    await trustIn("other@example.com");
    expect(await refusal(pull(service, name))).toContain('it is signed by ["ci@example.com"]');
    await trustIn("ci@example.com");
    expect(await pull(service, name)).toBe(image.id);
    await registry[Symbol.asyncDispose]();
    await use(service, image.id, name);
    await trustIn("other@example.com");
    expect(await refusal(use(service, image.id, name))).toContain("it is signed by");
  });

  test("a key of the policy that is none, or is not there, refuses", async () => {
    await attach(registry, "a/b", [signed()]);
    await write("cosign.pub", "no key");
    expect(await refusal(pull(service, name))).toContain("not one in PEM");
    await rm(join(scratch, "cosign.pub"));
    expect(await refusal(pull(service, name))).toContain("is not there");
  });

  test("a mirror that has no signatures sends us on to the host", async () => {
    const mirror = cleanup.use(await startDockerRegistry());
    await pushToRegistry(mirror, "m/a/b:1", image);
    await attach(registry, "a/b", [signed()]);
    await service[Symbol.asyncDispose]();
    service = await openService({
      [registry.host]: { insecure: true, mirrors: [`${mirror.host}/m`] },
      [mirror.host]: { insecure: true },
    });
    expect(await pull(service, name)).toBe(image.id);
  });

  test.each(["referrers", "a tag"])("bundles, which name no image, are told of where %s leads to them", async (way) => {
    await using fake = await startFakeRegistry();
    fake.push("a/b", "1", image);
    const artifactType = "application/vnd.dev.sigstore.bundle.v0.3+json";
    const list = { schemaVersion: 2, mediaType: indexType, manifests: [{ artifactType }] };
    const path = way === "a tag" ? `manifests/${digest.replace(":", "-")}` : `referrers/${digest}`;
    fake.intercept = ({ request, response, proceed }) => {
      if (request.url !== `/v2/a/b/${path}`) proceed();
      else response.writeHead(200, { "content-type": indexType }).end(JSON.stringify(list));
    };
    const node = await openService({ [fake.host]: { insecure: true } });
    const refused = await refusal(pull(node, `${fake.host}/a/b:1`));
    expect(refused).toMatch(/there is none \(it has signatures in sigstore's bundle format, which name no image/);
    list.manifests = [];
    expect(await refusal(pull(node, `${fake.host}/a/b:1`))).toMatch(/there is none$/);
  });

  test("a registry that fails when asked for signatures is named", async () => {
    await using fake = await startFakeRegistry();
    fake.push("a/b", "1", image);
    fake.intercept = ({ request, response, proceed }) => {
      if (request.url?.endsWith(".sig")) response.writeHead(500).end();
      else proceed();
    };
    const own = await openService({ [fake.host]: { insecure: true } });
    expect(await refusal(pull(own, `${fake.host}/a/b:1`))).toMatch(/signatures cannot be read: .*500/);
    expect(fake.requests.some(({ line }) => line.includes(`/blobs/${image.layers[0]?.digest}`))).toBe(false);
  });
});
