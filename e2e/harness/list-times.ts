import { setTimeout as sleep } from "node:timers/promises";
import { connectClient } from "./cri-client.ts";

// A process of its own, as kubelet is one, to be started with a high priority, V8's threads with it: the daemon is timed,
// not who else is busy on this machine. Asks for the containers every 20 ms until it is told to stop; then sends how many
// milliseconds each answer took.
const [socketPath = ""] = process.argv.slice(2);
using client = connectClient(socketPath);
const timesMs: number[] = [];
let isAsking = true;
process.once("message", () => (isAsking = false));
await client.call("ListContainers"); // connects, and is compiled
process.send?.("begun");
while (isAsking) {
  const askedAt = performance.now();
  await client.call("ListContainers");
  timesMs.push(performance.now() - askedAt);
  await sleep(20);
}
process.send?.(timesMs);
process.disconnect();
