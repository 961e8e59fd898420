import { spawn } from "node:child_process";
import { open, readFile } from "node:fs/promises";
import { connectClient, type CriClient } from "../harness/cri-client.ts";
import { waitUntil } from "../harness/wait-until.ts";
import type { BenchImages, PullImages } from "./images.ts";

/** One CRI server that takes part. */
export interface Contestant extends AsyncDisposable {
  readonly name: string;
  /** As the server tells it. */
  readonly version: string;
  readonly client: CriClient;
  /** Of the daemon; undefined when nobody said it. */
  readonly pid: number | undefined;
  /** The image of the benchmark's containers, as this server can pull it. */
  readonly image: string;
  /** Undefined when this server cannot reach the benchmark's registry. */
  readonly pullImages: PullImages | undefined;
  /** Where its own metrics are, if it serves any that are read here. */
  readonly metricsUrl?: string;
}

interface ServerCommand {
  readonly name: string;
  readonly argv: readonly [string, ...string[]];
  readonly env: Readonly<Record<string, string>>;
  readonly socketPath: string;
  readonly logFile: string;
  readonly images: Pick<BenchImages, "image" | "pullImages">;
  readonly metricsUrl?: string;
}

/** Starts a server and waits until it is ready for pods; disposing it ends the process. */
export async function startContestant(command: ServerCommand): Promise<Contestant> {
  const [program, ...args] = command.argv;
  const log = await open(command.logFile, "a");
  const child = spawn(program, args, { cwd: "/", stdio: ["ignore", log.fd, log.fd], env: command.env });
  await log.close();
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const client = connectClient(command.socketPath);
  const end = async (): Promise<void> => {
    client[Symbol.dispose]();
    if (child.exitCode === null && child.signalCode === null) child.kill("SIGTERM");
    const timer = setTimeout(() => child.kill("SIGKILL"), 15_000);
    await ended;
    clearTimeout(timer);
  };
  try {
    await waitUntil(`${command.name} to be ready`, async () => {
      if (child.exitCode !== null || child.signalCode !== null) return true;
      return (await isReady(client)) ? true : undefined;
    });
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) throw new Error("it ended");
    const { name, images, metricsUrl } = command;
    const { image, pullImages } = images;
    const version = await readVersion(client);
    const own = metricsUrl === undefined ? {} : { metricsUrl };
    return { name, image, pullImages, ...own, client, pid: child.pid, version, [Symbol.asyncDispose]: end };
  } catch (thrown) {
    await end();
    const log = await readFile(command.logFile, "utf8");
    throw new Error(`${command.name} does not start:\n${log.slice(-4000)}`, { cause: thrown });
  }
}

/** Takes in a server that somebody else runs. */
export async function joinContestant(parts: {
  readonly name: string;
  readonly socketPath: string;
  readonly pid: number | undefined;
  readonly image: string;
}): Promise<Contestant> {
  const { name, pid, image } = parts;
  const client = connectClient(parts.socketPath);
  if (!(await isReady(client))) throw new Error(`${name} at ${parts.socketPath} is not ready`);
  return {
    name,
    pid,
    image,
    pullImages: undefined,
    client,
    version: await readVersion(client),
    async [Symbol.asyncDispose]() {
      client[Symbol.dispose]();
    },
  };
}

async function isReady(client: CriClient): Promise<boolean> {
  const { status } = await client.call("Status", {}, { timeoutMs: 2_000 });
  const conditions = status?.conditions ?? [];
  return conditions.length > 0 && conditions.every((condition) => condition.status);
}

async function readVersion(client: CriClient): Promise<string> {
  const { runtimeName, runtimeVersion } = await client.call("Version");
  return `${runtimeName} ${runtimeVersion}`;
}
