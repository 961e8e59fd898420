import { randomBytes } from "node:crypto";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createTokenBucket, startThrottle, type Throttle } from "./throttle.ts";

const content = randomBytes(300_000);
let server: Server;
let throttle: Throttle;

beforeEach(async () => {
  server = createServer((request, response) => {
    if (request.url === "/cut")
      response.writeHead(200, { "content-length": 10 }).write("half", () => response.destroy());
    else request.pipe(response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  throttle = await startThrottle(`127.0.0.1:${(server.address() as AddressInfo).port}`, 20_000_000);
});
afterEach(async () => {
  await throttle[Symbol.asyncDispose]();
  server.closeAllConnections();
  server.close();
});

test("a connection waits for as long as its bytes are worth, whatever their pieces", () => {
  const take = createTokenBucket(1000);
  expect(take(20, 0)).toBe(0); // the burst
  expect(take(100, 0)).toBe(100);
  expect(take(50, 100)).toBe(50);
  expect(take(50, 110)).toBe(90);
});

test("a pause is worth no more than a burst", () => {
  const take = createTokenBucket(1000);
  take(1000, 0);
  expect(take(520, 10_000)).toBe(500);
});

test("bytes go both ways, whole", async () => {
  const answer = await fetch(`http://${throttle.address}/`, { method: "POST", body: content });
  expect(Buffer.from(await answer.arrayBuffer()).equals(content)).toBe(true);
});

test("a connection that the server breaks off breaks off for the client", async () => {
  const answer = await fetch(`http://${throttle.address}/cut`);
  await expect(answer.text()).rejects.toThrow("terminated");
});
