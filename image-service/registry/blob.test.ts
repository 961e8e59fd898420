import { randomBytes } from "node:crypto";
import type { ServerResponse } from "node:http";

import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { type FakeRegistry, plainEndpoint, plainNetwork, sha256, startFakeRegistry } from "../testing.ts";
import { createAuthorities } from "./authorities.ts";
import { downloadBlob, startBlob } from "./blob.ts";
import type { NetworkSettings } from "./endpoint.ts";
import { createHttp, type Http } from "./http.ts";
import { defaultLimits, defaultRetry, type RetryPolicy } from "./limits.ts";
import { createSession } from "./session.ts";
import { createTokenCache } from "./tokens.ts";

const blob = randomBytes(12 << 20);
const digest = sha256(blob);
const policy = { ...defaultRetry, baseDelayMs: 1, rangesAfterMs: 60 };

vi.setConfig({ testTimeout: 20_000 });
let registry: FakeRegistry;
let http: Http;
let network: NetworkSettings;

beforeEach(async () => {
  registry = await startFakeRegistry();
  registry.putBlob("team/app", digest, blob);
  network = plainNetwork(registry.host);
  http = createHttp({ endpoint: plainEndpoint(registry.host), network, policy, authorities: createAuthorities() });
});
afterEach(async () => {
  await http[Symbol.asyncDispose]();
  await registry[Symbol.asyncDispose]();
});

async function download(changes: Partial<RetryPolicy> = {}, ranged = { count: 0 }): Promise<Buffer> {
  const endpoint = plainEndpoint(registry.host);
  const session = createSession({ endpoint, http, network, limits: defaultLimits, tokens: createTokenCache() });
  const descriptor = { mediaType: "", digest, size: blob.length };
  const { signal } = new AbortController();
  const chunks: Buffer[] = [];
  const whole = { session, descriptor, policy: { ...policy, ...changes }, ranged, signal };
  for await (const chunk of downloadBlob(whole, startBlob(descriptor))) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}

const rangesAsked = (): string[] => registry.requests.flatMap(({ headers }) => headers.range ?? []);

/** Sends at a pace that leaves the reader waiting. */
function sendSlowly(response: ServerResponse, bytes: Buffer): void {
  if (response.destroyed) return;
  response.write(bytes.subarray(0, 64 << 10));
  const rest = bytes.subarray(64 << 10);
  if (rest.length === 0) response.end();
  else setTimeout(sendSlowly, 12, response, rest);
}

/** The whole blob slowly, saying that ranges may be asked for; those are answered as `proceed` does. */
function slowUnlessRanged(acceptRanges: Readonly<Record<string, string>> = { "accept-ranges": "bytes" }): void {
  registry.intercept = ({ request, response, proceed }) => {
    if (request.headers.range !== undefined) return proceed();
    response.writeHead(200, { "content-length": blob.length, ...acceptRanges });
    sendSlowly(response, blob);
  };
}

test("a blob that one slow connection holds up comes in byte ranges over several, whole and in order", async () => {
  slowUnlessRanged();
  expect((await download()).equals(blob)).toBe(true);
  expect(rangesAsked().length).toBeGreaterThan(3);
  expect(rangesAsked().every((range) => /^bytes=\d+-\d+$/.test(range))).toBe(true);
});

/** As {@link slowUnlessRanged}, but ranges come slowly too; answers how many came at once at most. */
function slowAlways(): () => number {
  let [open, most] = [0, 0];
  registry.intercept = ({ request, response }) => {
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
    const part = first === undefined ? blob : blob.subarray(Number(first), Number(last) + 1);
    response.writeHead(first === undefined ? 200 : 206, {
      "content-length": part.length,
      "accept-ranges": "bytes",
      ...(first === undefined ? {} : { "content-range": `bytes ${first}-${last}/${blob.length}` }),
    });
    open += first === undefined ? 0 : 1;
    most = Math.max(most, open);
    response.on("close", () => (open -= first === undefined ? 0 : 1));
    sendSlowly(response, part);
  };
  return () => most;
}

test("more connections are opened while those there are leave the reader waiting", async () => {
  const mostAtOnce = slowAlways();
  const downloading = async (): Promise<number> => {
    expect((await download()).equals(blob)).toBe(true);
    return mostAtOnce();
  };
  await expect.poll(downloading, { timeout: 15_000 }).toBeGreaterThan(2); // on a busy machine nobody may seem to wait
});

test("the blobs of a thread that come in byte ranges share its connections", async () => {
  const mostAtOnce = slowAlways();
  const ranged = { count: 7 };
  expect((await download({}, ranged)).equals(blob)).toBe(true);
  expect(mostAtOnce()).toBe(1);
  expect(ranged.count).toBe(7);
});

test("a blob that comes fast comes over one connection", async () => {
  expect((await download({ rangesAfterMs: 60_000 })).equals(blob)).toBe(true);
  expect(registry.requests).toHaveLength(1);
});

test("no byte range is asked of a registry that does not offer them", async () => {
  slowUnlessRanged({});
  expect((await download()).equals(blob)).toBe(true);
  expect(rangesAsked()).toEqual([]);
});

test.each([
  ["ignores them", { status: 200, headers: {} }],
  ["answers with others", { status: 206, headers: { "content-range": `bytes 0-99/${blob.length}` } }],
  ["refuses them", { status: 416, headers: {} }],
])("a registry that offers byte ranges and %s is read over one connection", async (_, { status, headers }) => {
  slowUnlessRanged();
  const slowly = registry.intercept;
  registry.intercept = (asked) => {
    const isSegment = /^bytes=\d+-\d+$/.test(asked.request.headers.range ?? "");
    if (!isSegment) return slowly?.(asked);
    asked.response.writeHead(status, headers).end(blob.subarray(0, 100));
  };
  const outcome = await download().catch((thrown: unknown) => thrown);
  expect(Buffer.isBuffer(outcome) && outcome.equals(blob)).toBe(true);
});

test("a segment that breaks off is fetched again, with what follows", async () => {
  slowUnlessRanged();
  const slowly = registry.intercept;
  let cut = false;
  registry.intercept = (asked) => {
    if (cut || asked.request.headers.range === undefined) return slowly?.(asked);
    cut = true;
    asked.response.writeHead(206, {
      "content-range": asked.request.headers.range.replace("=", " ") + `/${blob.length}`,
    });
    asked.response.write(Buffer.alloc(10), () => asked.response.destroy());
  };
  expect((await download()).equals(blob)).toBe(true);
  expect(cut).toBe(true);
});

test("a transfer that breaks behind its last byte is whole", async () => {
  registry.intercept = ({ request, response }) => {
    if (request.headers.range !== undefined) return response.writeHead(416).end();
    response.writeHead(200); // chunked: the end is a chunk of its own
    return response.write(blob, () => response.destroy());
  };
  expect((await download()).equals(blob)).toBe(true);
  expect(registry.requests).toHaveLength(1);
});

test("a transfer that goes on with another range than asked for is refused", async () => {
  let tries = 0;
  registry.intercept = ({ response }) => {
    tries += 1;
    if (tries > 1) return response.writeHead(206, { "content-range": "bytes 5-9/10" }).end("wrong");
    response.writeHead(200, { "content-length": blob.length });
    return response.write(blob.subarray(0, 1000), () => response.destroy());
  };
  await expect(download()).rejects.toThrow("another byte range than asked for");
});

test("a blob that changes between two parts of its transfer is refused", async () => {
  let tries = 0;
  registry.intercept = ({ response, proceed }) => {
    tries += 1;
    if (tries > 1) return proceed();
    response.writeHead(200, { "content-length": blob.length, etag: '"old"' });
    return response.write(Buffer.alloc(1000), () => response.destroy());
  };
  await expect(download()).rejects.toThrow("has the digest");
});
