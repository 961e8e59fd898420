import { expect, test } from "vitest";
import { Code } from "../../cri-api/index.ts";
import { createLogBook } from "../testing.ts";
import { renderFamilies } from "./exposition.ts";
import { startMetrics } from "./index.ts";
import { createRpcTimes } from "./rpc-times.ts";

const pull = {
  image: 'docker.io/library/"odd"',
  phase: "fetching",
  host: "docker.io",
  elapsedMs: 2000,
  layers: 8,
  layersDone: 3,
  totalBytes: 200,
  downloadedBytes: 100,
  unpackedBytes: 1,
  bytesPerSecond: 50,
} as const;
const images = {
  pullsInProgress: () => [pull],
  pullTotals: () => ({ pulled: 5, failed: 1, downloadedBytes: 7000 }),
  storeUsage: () => ({ images: 2, usedBytes: 8192, inodes: 9 }),
};

test("the endpoint serves every family once, in Prometheus's text format", async () => {
  const config = { address: "127.0.0.1", port: 0 };
  await using metrics = await startMetrics({ config, version: "1.2.3", images, log: createLogBook().log });
  metrics.rpcTimes.add("PullImage", Code.Ok, 3);
  metrics.rpcTimes.add("PullImage", Code.NotFound, 0.003);
  const at = (path: string): Promise<Response> => fetch(`http://127.0.0.1:${metrics.port}${path}`);
  const response = await at("/metrics");
  expect(response.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
  const lines = (await response.text()).trimEnd().split("\n");
  for (const line of lines)
    expect(line).toMatch(
      /^(?:# (?:HELP|TYPE) [a-z_]+ .+|[a-z_]+(?:\{(?:[a-z]+="(?:[^"\\]|\\.)*",?)+\})? -?[\d.e+-]+)$/u,
    );
  const helped = lines.filter((line) => line.startsWith("# HELP")).map((line) => line.split(" ")[2]);
  expect(new Set(helped).size).toBe(helped.length);
  expect(lines).toEqual(
    expect.arrayContaining([
      'berth_build_info{version="1.2.3"} 1',
      'berth_rpc_duration_seconds_bucket{rpc="PullImage",le="0.001"} 0',
      'berth_rpc_duration_seconds_bucket{rpc="PullImage",le="0.005"} 1',
      'berth_rpc_duration_seconds_bucket{rpc="PullImage",le="10"} 2',
      'berth_rpc_duration_seconds_bucket{rpc="PullImage",le="+Inf"} 2',
      'berth_rpc_duration_seconds_sum{rpc="PullImage"} 3.003',
      'berth_rpc_duration_seconds_count{rpc="PullImage"} 2',
      'berth_rpc_errors_total{rpc="PullImage",code="NotFound"} 1',
      "berth_image_pulls_total 5",
      "berth_image_store_bytes 8192",
      String.raw`berth_image_pull_downloaded_bytes{image="docker.io/library/\"odd\"",host="docker.io"} 100`,
      String.raw`berth_image_pull_unpacked_bytes{image="docker.io/library/\"odd\"",host="docker.io"} 1`,
      String.raw`berth_image_pull_phase{image="docker.io/library/\"odd\"",host="docker.io",phase="fetching"} 1`,
    ]),
  );
  expect((await at("/other")).status).toBe(404);
  expect((await fetch(`http://127.0.0.1:${metrics.port}/metrics`, { method: "POST" })).status).toBe(405);
});

test("an address that is taken is an error at the start", async () => {
  const parts = { version: "1", images, log: createLogBook().log };
  await using first = await startMetrics({ ...parts, config: { address: "127.0.0.1", port: 0 } });
  await expect(startMetrics({ ...parts, config: { address: "127.0.0.1", port: first.port } })).rejects.toThrow(
    "EADDRINUSE",
  );
});

test("a call beyond the last bound counts in the last bucket, and label values are escaped", () => {
  const times = createRpcTimes();
  times.add("ExecSync", Code.Ok, 1000);
  const text = renderFamilies(times.families());
  expect(text).toContain('le="300"} 0\n');
  expect(text).toContain('le="+Inf"} 1\n');
  const samples = [{ labels: { a: 'back\\slash "quote"\nline' }, value: 1 }];
  expect(renderFamilies([{ name: "x", help: "X.", type: "gauge", samples }])).toBe(
    '# HELP x X.\n# TYPE x gauge\nx{a="back\\\\slash \\"quote\\"\\nline"} 1\n',
  );
});
