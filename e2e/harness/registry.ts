import { spawn } from "node:child_process";
import { mkdir, open, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import path from "node:path";
import { waitUntil } from "./wait-until.ts";

/** A Docker registry (distribution) serving one folder over plain HTTP on loopback. */
export interface Registry extends AsyncDisposable {
  /** host:port, as it stands in an image reference. */
  readonly address: string;
}

/** Starts a registry on `port` (0: any free one) that keeps its data under `directory`. */
export async function startRegistry(directory: string, port = 0): Promise<Registry> {
  await mkdir(directory, { recursive: true });
  const address = `127.0.0.1:${port === 0 ? await findFreePort() : port}`;
  const configFile = path.join(directory, "config.json");
  // The registry reads YAML, and JSON is YAML.
  await writeFile(configFile, JSON.stringify(registryConfig(path.join(directory, "data"), address)));
  const log = await open(path.join(directory, "registry.log"), "a");
  const child = spawn("docker-registry", ["serve", configFile], {
    stdio: ["ignore", log.fd, log.fd],
    env: { PATH: process.env["PATH"], OTEL_TRACES_EXPORTER: "none" },
  });
  await log.close();
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  await waitUntil("the registry to answer", async () => {
    if (child.exitCode !== null) throw new Error(`the registry ended with ${child.exitCode}`);
    return (await fetch(`http://${address}/v2/`)).ok ? true : undefined;
  });
  return {
    address,
    async [Symbol.asyncDispose](): Promise<void> {
      child.kill("SIGKILL");
      await ended;
    },
  };
}

function registryConfig(dataDirectory: string, address: string): object {
  return {
    version: "0.1",
    log: { level: "warn", accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: dataDirectory, maxthreads: 100 }, delete: { enabled: true } },
    http: { addr: address, secret: "tests need none" },
  };
}

async function findFreePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}
