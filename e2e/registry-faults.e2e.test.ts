import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { Code } from "../cri-api/index.ts";
import { credentials, type FaultyRegistry, startFaultyRegistry } from "./harness/faulty-registry.ts";
import { useDaemon } from "./harness/fixture.ts";
import { waitUntil } from "./harness/wait-until.ts";

let faulty: FaultyRegistry;
beforeAll(async () => {
  faulty = await startFaultyRegistry(inject("registry"));
});
// Nothing is pulled before: a layer that is in the store would not be asked for again.
const berth = useDaemon({ pull: [], registries: () => [faulty.address, faulty.storageAddress] });
afterAll(() => faulty[Symbol.asyncDispose]());

describe("a registry", () => {
  const pull = (fault: string, code: Code, text: RegExp): Promise<void> =>
    berth.expectFailure("PullImage", { image: { image: `${faulty.address}/${fault}/berth/busybox:1` } }, code, text);

  test("that answers 404 makes the pull NotFound", () => pull("missing", Code.NotFound, /missing\/berth\/busybox/u));
  test("that answers 401 makes it a matter of credentials", async () => {
    const image = `${faulty.address}/unauthorized/berth/busybox:1`;
    const thrown: unknown = await berth.call("PullImage", { image: { image } }).catch((error: unknown) => error);
    expect(thrown).toMatchObject({
      code: expect.toSatisfy((code) => code === Code.PermissionDenied || code === Code.Unauthenticated),
    });
  });
  test("that answers 500 is unavailable", () => pull("broken", Code.Unavailable, /500/u));
  test("that sends half a blob fails the pull", () => pull("half", Code.Unavailable, /connection broke|ended after/u));
  test("that sends other bytes than the digest says fails the pull", () => pull("wrong", Code.DataLoss, /digest/iu));
  test("that sends a web page for a blob fails the pull", () =>
    pull("garbage", Code.Unavailable, /ended after 29 of \d+ bytes/u));
  test("that refuses connections is unavailable, in kubelet's words", async () => {
    const request = { image: { image: "127.0.0.1:9/none:1" } };
    await berth.expectFailure("PullImage", request, Code.Unknown, /^RegistryUnavailable: /u);
  });
  test.each([
    ["throttled", "asks for patience"],
    ["cut", "cuts a blob, and goes on where it broke"],
    ["norange", "cuts a blob, and knows no ranges"],
    ["trickle", "gives its bytes slowly"],
  ])("whose way is %s (%s) costs time, and no more", async (fault) => {
    const image = `${faulty.address}/${fault}/berth/busybox:1`;
    const { imageRef } = await berth.call("PullImage", { image: { image } });
    await berth.call("RemoveImage", { image: { image: imageRef } });
    const blobs = faulty.requests.filter((path) => path.includes(`/${fault}/`) && path.includes("/blobs/"));
    expect(blobs.length).toBeGreaterThan(new Set(blobs).size - (fault === "trickle" ? 1 : 0));
  });
  test("that sends us to another host for blobs does not send its credentials along", async () => {
    const image = `${faulty.address}/moved/berth/busybox:1`;
    const { username, password } = credentials;
    const { imageRef } = await berth.call("PullImage", { image: { image }, auth: { username, password } });
    await berth.call("RemoveImage", { image: { image: imageRef } });
    expect(faulty.leaked).toEqual([]);
  });
  test("that never answers ends with the caller's deadline", async () => {
    const before = await berth.findTraces();
    const image = { image: `${faulty.address}/slow/berth/busybox:1` };
    await expect(berth.call("PullImage", { image }, { timeoutMs: 300 })).rejects.toMatchObject({
      code: Code.DeadlineExceeded,
    });
    await berth.expectNothingNew(before);
  });
  test("that keeps a pull waiting shows it in Status, for as long as it lasts", async () => {
    const image = `${faulty.address}/slow/berth/busybox:1`;
    const pulls = async (): Promise<unknown[]> => {
      const { info } = await berth.call("Status", { verbose: true });
      return JSON.parse(info["imagePulls"] ?? "") as unknown[];
    };
    expect(await pulls()).toEqual([]);
    const left = new AbortController();
    const pull = berth.call("PullImage", { image: { image } }, { signal: left.signal });
    const [shown] = await waitUntil("the pull in Status", async () => {
      const shownNow = await pulls();
      return shownNow.length > 0 ? shownNow : undefined;
    });
    expect(shown).toMatchObject({
      image,
      phase: "resolving",
      host: faulty.address,
      layers: 0,
      downloadedBytes: 0,
      unpackedBytes: 0,
      bytesPerSecond: 0,
      elapsedMs: expect.any(Number) as number,
    });
    left.abort();
    await expect(pull).rejects.toMatchObject({ code: Code.Canceled });
    await waitUntil("Status without the pull", async () => ((await pulls()).length === 0 ? true : undefined));
  });
  test("over plain HTTP is refused unless the configuration says it is insecure", async () => {
    const image = `127.0.0.2:${inject("registry").split(":")[1]}/berth/busybox:1`;
    await berth.expectFailure("PullImage", { image: { image } }, Code.Unknown, /./u);
  });
});
