import { generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "node:tls";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createStreamingServer, type StreamingServer } from "./streaming-server.ts";
import type { TlsFiles } from "./tls-files.ts";
import { connectSpdy, createBackend, createFakeProcess, readAll, silentLog } from "./testing.ts";

/** One DER value: tag, length, content. */
function der(tag: number, ...contents: readonly Buffer[]): Buffer {
  const content = Buffer.concat(contents);
  const { length } = content;
  const head =
    length < 128 ? [tag, length] : length < 256 ? [tag, 0x81, length] : [tag, 0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from(head), content]);
}

const sequence = 0x30;
const ecdsaWithSha256 = der(sequence, Buffer.from("06082a8648ce3d040302", "hex"));

/** A self-signed X.509 v1 certificate, valid from 2020 to 2049. */
function certificate(commonName: string): { readonly cert: string; readonly key: string } {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const attribute = der(sequence, Buffer.from("0603550403", "hex"), der(0x0c, Buffer.from(commonName)));
  const name = der(sequence, der(0x31, attribute));
  const validity = der(sequence, der(0x17, Buffer.from("200101000000Z")), der(0x17, Buffer.from("490101000000Z")));
  const serial = der(0x02, Buffer.from([1]));
  const publicPart = publicKey.export({ type: "spki", format: "der" });
  const body = der(sequence, serial, ecdsaWithSha256, name, validity, name, publicPart);
  const signature = der(0x03, Buffer.from([0]), sign("sha256", body, privateKey));
  return { cert: toPem(der(sequence, body, ecdsaWithSha256, signature)), key: exportKey(privateKey) };
}

function toPem(bytes: Buffer): string {
  return `-----BEGIN CERTIFICATE-----\n${bytes.toString("base64")}\n-----END CERTIFICATE-----\n`;
}

function exportKey(key: KeyObject): string {
  return key.export({ type: "pkcs8", format: "pem" }).toString();
}

const request = { containerId: "c", cmd: ["x"], tty: false, stdin: false, stdout: true, stderr: false };
let stack = new AsyncDisposableStack();
let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "berth-streaming-tls-"));
});
afterEach(async () => {
  vi.useRealTimers();
  const used = stack;
  stack = new AsyncDisposableStack();
  await used.disposeAsync();
  await rm(folder, { recursive: true });
});

async function serve(tls: TlsFiles): Promise<StreamingServer> {
  const process = createFakeProcess();
  process.stdout.end("secret");
  process.exit(0);
  const config = { address: "127.0.0.1", port: 0, idleTimeoutMs: 60_000, streamCreationTimeoutMs: 5000, tls };
  const backend = createBackend({ exec: async () => process });
  return stack.use(await createStreamingServer({ config, backend, log: silentLog }));
}

async function writeFiles(own: { readonly cert: string; readonly key: string }): Promise<TlsFiles> {
  const files = { certFile: join(folder, "cert.pem"), keyFile: join(folder, "key.pem") };
  await writeFile(files.certFile, own.cert);
  await writeFile(files.keyFile, own.key);
  return files;
}

const trusting = (ca: string): object => ({ ca, checkServerIdentity: () => undefined });

test("exec works over TLS", async () => {
  const own = certificate("berth");
  const server = await serve(await writeFiles(own));
  const url = server.execUrl(request);
  expect(url).toMatch(/^https:/);
  const client = await connectSpdy(url, ["v4.channel.k8s.io"], { tls: trusting(own.cert) });
  await client.open({ streamtype: "error" });
  const stdout = await client.open({ streamtype: "stdout" });
  expect(String(await readAll(stdout.output))).toBe("secret");
  client.close();
});

test("a client without a certificate of the right authority is refused", async () => {
  const own = certificate("berth");
  const allowed = certificate("kubelet");
  const clientCaFile = join(folder, "ca.pem");
  await writeFile(clientCaFile, allowed.cert);
  const server = await serve({ ...(await writeFiles(own)), clientCaFile });
  const protocols = ["v4.channel.k8s.io"];
  await expect(connectSpdy(server.execUrl(request), protocols, { tls: trusting(own.cert) })).rejects.toThrow();
  const stranger = { ...trusting(own.cert), ...certificate("stranger") };
  await expect(connectSpdy(server.execUrl(request), protocols, { tls: stranger })).rejects.toThrow();
  const client = await connectSpdy(server.execUrl(request), protocols, { tls: { ...trusting(own.cert), ...allowed } });
  client.socket.destroy();
});

/** The name on the certificate the server shows now. */
async function nameAt(port: number): Promise<string | undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<string | undefined>();
  const socket = connect({ port, host: "127.0.0.1", rejectUnauthorized: false, checkServerIdentity: () => undefined });
  socket.on("error", reject);
  socket.on("secureConnect", () => {
    resolve(String(socket.getPeerCertificate().subject.CN));
    socket.destroy();
  });
  return promise;
}

test("a renewed certificate is used within a minute, and a broken one is not", async () => {
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
  const server = await serve(await writeFiles(certificate("first")));
  const port = Number(new URL(server.execUrl(request)).port);
  expect(await nameAt(port)).toBe("first");
  await writeFiles({ cert: "broken", key: "broken" });
  await vi.advanceTimersByTimeAsync(60_000);
  expect(await nameAt(port)).toBe("first");
  await writeFiles(certificate("second"));
  await vi.advanceTimersByTimeAsync(60_000);
  for (let name = await nameAt(port); name !== "second"; name = await nameAt(port)) expect(name).toBe("first");
});

test("a missing certificate is an error at the start", async () => {
  await expect(serve({ certFile: join(folder, "none"), keyFile: join(folder, "none") })).rejects.toThrow("ENOENT");
});
