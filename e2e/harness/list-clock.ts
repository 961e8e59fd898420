import { spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { quantile } from "./quantile.ts";
import { nodeProgram } from "./repository.ts";

/**
 * Times ListContainers while `work` goes on, by a process of its own, and prints what it found.
 *
 * @returns The median in milliseconds: where others take this machine's processors now and then, only a daemon that
 * blocks moves it.
 */
export async function timeListsDuring(what: string, socketPath: string, work: () => Promise<unknown>): Promise<number> {
  const clock = spawn("nice", ["-n", "-20", nodeProgram, path.join(import.meta.dirname, "list-times.ts"), socketPath], {
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  try {
    await once(clock, "message");
    const startedAt = performance.now();
    await work();
    const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
    clock.send("stop");
    const [timesMs] = (await once(clock, "message")) as [number[]];
    const [medianMs, p99Ms] = [quantile(timesMs, 0.5), quantile(timesMs, 0.99)];
    const figures = `p50 ${medianMs.toFixed(1)} ms, p99 ${p99Ms.toFixed(1)} ms of ${timesMs.length}`;
    process.stdout.write(`${what} in ${seconds} s; ListContainers meanwhile: ${figures}\n`);
    return medianMs;
  } finally {
    clock.kill("SIGKILL");
  }
}
