/** Preloaded into a daemon whose memory is looked at: on SIGUSR2 it frees what no longer has an owner. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { isMainThread } from "node:worker_threads";

if (isMainThread) {
  setFlagsFromString("--expose-gc");
  const gc: unknown = runInNewContext("gc");
  if (typeof gc !== "function") throw new Error("no garbage collector to call");
  // This flavor also gives back the pages that V8 keeps for later: else a heap of the same objects has two sizes.
  const collect = (): void => void gc({ type: "major", execution: "sync", flavor: "last-resort" });
  process.on("SIGUSR2", () => {
    collect();
    setImmediate(collect); // the first run's finalizers let go of more
  });
}
