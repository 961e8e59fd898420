import { createServer, type ServerResponse } from "node:http";
import { monitorEventLoopDelay } from "node:perf_hooks";
import type { Logger } from "../../cri-api/index.ts";
import { renderFamilies } from "./exposition.ts";
import { imageFamilies, type MeasuredImages } from "./image-families.ts";
import { delayResolutionMs, processFamilies } from "./process-families.ts";
import { createRpcTimes, type RpcTimes } from "./rpc-times.ts";

/** Where the metrics are served, over plain HTTP. */
export interface MetricsConfig {
  readonly address: string;
  /** 0 is nowhere. */
  readonly port: number;
}

export interface MetricsParts {
  readonly config: MetricsConfig;
  readonly version: string;
  readonly images: MeasuredImages;
  readonly log: Logger;
}

/** The endpoint, and what it is told. */
export interface Metrics extends AsyncDisposable {
  readonly port: number;
  readonly rpcTimes: RpcTimes;
}

const maxConnections = 16;

/**
 * Serves `/metrics` in Prometheus's text format.
 *
 * @throws {Error} when the address is taken.
 */
export async function startMetrics({ config, version, images, log }: MetricsParts): Promise<Metrics> {
  const rpcTimes = createRpcTimes();
  const delay = monitorEventLoopDelay({ resolution: delayResolutionMs });
  delay.enable();

  async function answer(response: ServerResponse): Promise<void> {
    const build = { name: "berth_build_info", help: "This version.", type: "gauge" } as const;
    const families = [
      { ...build, samples: [{ labels: { version }, value: 1 }] },
      ...rpcTimes.families(),
      ...imageFamilies(images),
      ...(await processFamilies(delay)),
    ];
    response
      .writeHead(200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" })
      .end(renderFamilies(families));
  }
  const server = createServer((request, response) => {
    if (request.url !== "/metrics") response.writeHead(404).end();
    else if (request.method !== "GET") response.writeHead(405, { allow: "GET" }).end();
    else
      answer(response).catch((thrown: unknown) => {
        log.warn({ error: String(thrown) }, "metrics cannot be read");
        response.writeHead(500).end();
      });
  });
  server.maxConnections = maxConnections;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", reject);
  server.listen(config.port, config.address, resolve);
  await promise;
  server.on("error", (error) => log.warn({ err: error }, "a metrics connection was not accepted"));
  const address = server.address();
  return {
    port: typeof address === "object" && address !== null ? address.port : config.port,
    rpcTimes,
    async [Symbol.asyncDispose]() {
      delay.disable();
      server.closeAllConnections();
      await new Promise<void>((closed) => {
        server.close(() => closed());
      });
    },
  };
}
