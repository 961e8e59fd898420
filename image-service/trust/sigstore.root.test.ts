import { createHash, createPrivateKey, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { run } from "../../native/index.ts";
import type { KeySource, Requirement } from "./policy.ts";
import type { ImageSignature } from "./signature.ts";
import { openSigstoreSignature } from "./sigstore.ts";

// Certificates and log entries of a test's own Fulcio and Rekor, made by openssl and node:crypto.

type SigstoreSigned = Extract<Requirement, { type: "sigstoreSigned" }>;
type SigstoreSignature = Extract<ImageSignature, { kind: "sigstore" }>;

const payload = Buffer.from("what is signed");
const oidcIssuer = "https://issuer.example";
const subjectEmail = "signer@example.com";
const log = generateKeyPairSync("ec", { namedCurve: "P-256" });
const otherLog = generateKeyPairSync("ec", { namedCurve: "P-256" });
const signedIdentity = { type: "matchRepository" } as const;

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "berth-fulcio-"));
  await makeAuthority("root");
  await makeAuthority("foreign");
  await makeAuthority("between", "root");
  await makeAuthority("narrow", "root", "basicConstraints=critical,CA:TRUE,pathlen:0");
  await makeAuthority("toodeep", "narrow");
  await makeAuthority("tls", "root", "basicConstraints=critical,CA:TRUE\nextendedKeyUsage=serverAuth");
  await makeAuthority("noca", "root", "basicConstraints=critical,CA:FALSE");
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const at = (name: string): string => join(directory, name);

async function openssl(...args: readonly string[]): Promise<void> {
  const argv = ["/usr/bin/openssl", ...args] as const;
  const { status, stderr } = await run({ argv: [...argv], env: {}, signal: AbortSignal.timeout(30_000) });
  if (status.kind !== "exited" || status.code !== 0) throw new Error(stderr.toString("utf8"));
}

async function certify(name: string, issuer: string, extensions: string, days = 1): Promise<void> {
  await writeFile(at(`${name}.ext`), extensions);
  await openssl("ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", at(`${name}.key`));
  await openssl("req", "-new", "-key", at(`${name}.key`), "-subj", `/O=test/CN=${name}`, "-out", at(`${name}.csr`));
  const authority =
    issuer === name ? ["-signkey", at(`${name}.key`)] : ["-CA", at(`${issuer}.pem`), "-CAkey", at(`${issuer}.key`)];
  const files = ["-in", at(`${name}.csr`), "-extfile", at(`${name}.ext`), "-out", at(`${name}.pem`)];
  await openssl("x509", "-req", "-days", String(days), "-set_serial", "1", ...authority, ...files);
}

async function makeAuthority(
  name: string,
  issuer: string = name,
  extensions: string = "basicConstraints=critical,CA:TRUE",
): Promise<void> {
  await certify(name, issuer, `${extensions}\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n`);
}

const bareIssuer = `1.3.6.1.4.1.57264.1.1=DER:${Buffer.from(oidcIssuer).toString("hex")}`;
const leafExtensions: readonly string[] = [
  "keyUsage=critical,digitalSignature",
  "extendedKeyUsage=codeSigning",
  `subjectAltName=critical,email:${subjectEmail}`,
  bareIssuer,
];

/** A certificate for a signer, and its key. */
async function makeSigner(
  issuer = "between",
  extensions = leafExtensions,
  days = 1,
): Promise<{ certificate: string; key: KeyObject }> {
  const name = `signer${Math.random()}`;
  await certify(name, issuer, extensions.join("\n"), days);
  const [certificate, key] = [await readFile(at(`${name}.pem`), "utf8"), await readFile(at(`${name}.key`))];
  return { certificate, key: createPrivateKey(key) };
}

async function pemOf(...names: readonly string[]): Promise<string> {
  return (await Promise.all(names.map((name) => readFile(at(`${name}.pem`), "utf8")))).join("");
}

const publicPem = (key: KeyObject): Buffer => Buffer.from(key.export({ type: "spki", format: "pem" }).toString());

interface Entry {
  readonly signature: Buffer;
  readonly signer: string;
  readonly atMs?: number;
  readonly logKey?: KeyObject;
  readonly hash?: string;
  readonly kind?: string;
}

/** What Rekor promises of a signature. */
function logEntry({ signature, signer, atMs = Date.now(), logKey = log.privateKey, hash, kind }: Entry): string {
  const value = hash ?? createHash("sha256").update(payload).digest("hex");
  const publicKey = { content: Buffer.from(signer).toString("base64") };
  const body = Buffer.from(
    JSON.stringify({
      apiVersion: "0.0.1",
      kind: kind ?? "hashedrekord",
      spec: {
        data: { hash: { algorithm: "sha256", value } },
        signature: { content: signature.toString("base64"), publicKey },
      },
    }),
  ).toString("base64");
  const entry = { body, integratedTime: Math.floor(atMs / 1000), logID: "ab".repeat(32), logIndex: 7 };
  const promise = sign("sha256", Buffer.from(JSON.stringify(entry)), logKey).toString("base64");
  return JSON.stringify({ SignedEntryTimestamp: promise, Payload: entry });
}

function signatureOf(parts: Partial<SigstoreSignature>): SigstoreSignature {
  return {
    kind: "sigstore",
    subject: `sha256:${"1".repeat(64)}`,
    payload: payload.toString("base64"),
    signature: "",
    ...parts,
  };
}

async function open(requirement: Partial<SigstoreSigned>, parts: Partial<SigstoreSignature>): Promise<Buffer> {
  const rekor: KeySource = { datas: [publicPem(otherLog.publicKey), publicPem(log.publicKey)] };
  const root = Buffer.from(await pemOf("root"));
  const whole: SigstoreSigned = {
    type: "sigstoreSigned",
    signer: { fulcio: { ca: { datas: [root] }, oidcIssuer, subjectEmail } },
    rekor,
    signedIdentity,
    ...requirement,
  };
  const read = async (source: KeySource): Promise<readonly Buffer[]> => ("datas" in source ? source.datas : []);
  return await openSigstoreSignature(whole, signatureOf(parts), read);
}

/** A signature with a signer's certificate, logged. */
async function signedBy(
  { certificate, key }: { certificate: string; key: KeyObject },
  entry: Partial<Entry> = {},
  between: readonly string[] = ["between", "root"],
): Promise<Partial<SigstoreSignature>> {
  const signature = sign("sha256", payload, key);
  const bundle = logEntry({ signature, signer: certificate, ...entry });
  return { signature: signature.toString("base64"), certificate, chain: await pemOf(...between), bundle };
}

describe("a key and a log", () => {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const signer = { keys: { datas: [publicPem(publicKey)] } };
  const signature = sign("sha256", payload, privateKey);
  const parts = { signature: signature.toString("base64") };
  const entry = { signature, signer: publicPem(publicKey).toString() };

  test("a signature that the log promises to have holds", async () => {
    expect(await open({ signer }, { ...parts, bundle: logEntry(entry) })).toEqual(payload);
  });

  test.each<[string, string | undefined, string]>([
    ["in no log", undefined, "in no transparency log"],
    ["in another log", logEntry({ ...entry, logKey: privateKey }), "of another log"],
    ["logged for another signature", logEntry({ ...entry, signature: Buffer.from("x") }), "of another signature"],
    ["logged for another payload", logEntry({ ...entry, hash: "00" }), "of another signature"],
    [
      "logged for another key",
      logEntry({ ...entry, signer: publicPem(log.publicKey).toString() }),
      "of another signature",
    ],
    ["logged as something else", logEntry({ ...entry, kind: "intoto" }), "malformed"],
    ["logged with more than is known", logEntry(entry).replace("{", '{"more":1,'), "malformed"],
    [
      "logged at another time than the promise says",
      logEntry(entry).replace(/"integratedTime":\d+/, '"integratedTime":1'),
      "of another log",
    ],
    ["logged in no JSON", "{", "not JSON"],
  ])("a signature that is %s does not", async (_, bundle, why) => {
    await expect(open({ signer }, { ...parts, bundle })).rejects.toThrow(why);
  });
});

describe("a certificate and a log", () => {
  test("a signature holds long after its certificate has expired, if the log says when it was made", async () => {
    expect(await open({}, await signedBy(await makeSigner()))).toEqual(payload);
  });

  test("also straight below the root, and with both spellings of the issuer", async () => {
    const named = Buffer.concat([Buffer.from([0x0c, oidcIssuer.length]), Buffer.from(oidcIssuer)]).toString("hex");
    const signer = await makeSigner("root", [...leafExtensions, `1.3.6.1.4.1.57264.1.8=DER:${named}`]);
    expect(await open({}, await signedBy(signer, {}, []))).toEqual(payload);
  });

  const without = (start: string): readonly string[] => leafExtensions.filter((line) => !line.startsWith(start));
  test.each<[string, readonly [issuer: string, ...chain: string[]], readonly string[], string]>([
    ["another authority", ["foreign", "foreign"], leafExtensions, "of another authority"],
    ["an authority that did not come along", ["between"], leafExtensions, "of another authority"],
    ["an authority that may have none below", ["toodeep", "toodeep", "narrow"], leafExtensions, "of another authority"],
    ["an authority for servers", ["tls", "tls"], leafExtensions, "of another authority"],
    ["no authority at all", ["noca", "noca"], leafExtensions, "of another authority"],
    ["no purpose", ["between", "between"], without("extended"), "not for signing"],
    [
      "another purpose",
      ["between", "between"],
      [...without("extended"), "extendedKeyUsage=serverAuth"],
      "not for signing",
    ],
    ["no issuer", ["between", "between"], without("1.3.6"), "another issuer"],
    [
      "another issuer",
      ["between", "between"],
      [...without("1.3.6"), "1.3.6.1.4.1.57264.1.1=DER:6162"],
      "another issuer",
    ],
    [
      "two issuers",
      ["between", "between"],
      [...leafExtensions, "1.3.6.1.4.1.57264.1.8=DER:0c026162"],
      "another issuer",
    ],
    [
      "another address",
      ["between", "between"],
      [...without("subject"), "subjectAltName=email:x@example.com"],
      "x@example.com",
    ],
    [
      "the address as a name",
      ["between", "between"],
      [...without("subject"), `subjectAltName=URI:${subjectEmail}`],
      "signed by []",
    ],
    [
      "something critical that nobody knows",
      ["between", "between"],
      [...leafExtensions, "1.2.3.4=critical,DER:0500"],
      "critical extension",
    ],
  ])("a certificate with %s does not", async (_, [issuer, ...chain], extensions, why) => {
    const parts = await signedBy(await makeSigner(issuer, extensions), {}, chain);
    await expect(open({}, parts)).rejects.toThrow(why);
  });

  test("nor does one outside of its time, one that is not the log's, or another's signature", async () => {
    const signer = await makeSigner();
    const dayMs = 24 * 3600 * 1000;
    for (const atMs of [Date.now() - dayMs, Date.now() + 2 * dayMs])
      await expect(open({}, await signedBy(signer, { atMs }))).rejects.toThrow("not valid when it was made");
    const other = await makeSigner();
    await expect(open({}, await signedBy(signer, { signer: other.certificate }))).rejects.toThrow("another signature");
    const mixed = await signedBy({ ...signer, key: other.key });
    await expect(open({}, mixed)).rejects.toThrow("made with another key");
    await expect(open({}, { ...(await signedBy(signer)), certificate: undefined })).rejects.toThrow("one certificate");
    const two = `${signer.certificate}${other.certificate}`;
    await expect(open({}, { ...(await signedBy(signer, { signer: two })), certificate: two })).rejects.toThrow(
      "one certificate",
    );
    await expect(open({}, { ...(await signedBy(signer)), bundle: undefined })).rejects.toThrow(
      "in no transparency log",
    );
  });
});

describe("a certificate of an authority of one's own", () => {
  const extensions = [
    "keyUsage=critical,digitalSignature",
    "extendedKeyUsage=codeSigning",
    `subjectAltName=email:${subjectEmail},DNS:*.build.example,IP:10.1.2.3`,
  ];
  type Pki = { subjectEmail?: string; subjectHostname?: string; between?: string };

  async function openPki({ between, ...subjects }: Pki, parts: Partial<SigstoreSignature>): Promise<Buffer> {
    const pemDatas = async (name: string): Promise<KeySource> => ({ datas: [Buffer.from(await pemOf(name))] });
    const intermediates = between === undefined ? undefined : await pemDatas(between);
    const roots = await pemDatas("root");
    const whole = { subjectEmail: undefined, subjectHostname: undefined, ...subjects, roots, intermediates };
    return await open({ signer: { pki: whole }, rekor: undefined }, { ...parts, bundle: undefined });
  }

  test("holds without a log, with what stands in between from the policy or from the signature", async () => {
    const signer = await makeSigner("between", extensions);
    expect(await openPki({ subjectEmail }, await signedBy(signer))).toEqual(payload);
    const alone = await signedBy(signer, {}, []);
    expect(await openPki({ subjectEmail, between: "between" }, alone)).toEqual(payload);
    await expect(openPki({ subjectEmail }, alone)).rejects.toThrow("of another authority");
  });

  test.each<[Pki, string | undefined]>([
    [{ subjectHostname: "one.build.example" }, undefined],
    [{ subjectHostname: "10.1.2.3" }, undefined],
    [{ subjectHostname: "one.build.example", subjectEmail }, undefined],
    [{ subjectHostname: "one.two.build.example" }, "not signed by"],
    [{ subjectHostname: "build.example" }, "not signed by"],
    [{ subjectHostname: "10.1.2.4" }, "not signed by"],
    [{ subjectHostname: "one.build.example", subjectEmail: "x@example.com" }, "it is signed by"],
    [{ subjectHostname: "x.example", subjectEmail }, "not signed by"],
  ])("has to be for all of %j", async (subjects, why) => {
    const work = openPki(subjects, await signedBy(await makeSigner("between", extensions)));
    if (why === undefined) await expect(work).resolves.toEqual(payload);
    else await expect(work).rejects.toThrow(why);
  });

  test("does not hold once it has expired, of another authority, or for another purpose", async () => {
    const expired = await signedBy(await makeSigner("between", extensions, 0));
    await expect(openPki({ subjectEmail }, expired)).rejects.toThrow("not valid when it was made");
    const foreign = await signedBy(await makeSigner("foreign", extensions), {}, ["foreign"]);
    await expect(openPki({ subjectEmail }, foreign)).rejects.toThrow("of another authority");
    const [usage = "", , names = ""] = extensions;
    const purposeless = await signedBy(await makeSigner("between", [usage, names]));
    await expect(openPki({ subjectEmail }, purposeless)).rejects.toThrow("not for signing");
  });
});
