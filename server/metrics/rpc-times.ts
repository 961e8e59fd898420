import { Code } from "../../cri-api/index.ts";
import type { Family, Sample } from "./exposition.ts";

/** Seconds; from an answer out of memory to the pull of a large image. */
const bounds = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60, 300];

/** How often each RPC was answered, how fast, and how often in vain. */
export interface RpcTimes {
  readonly add: (rpc: string, code: Code, seconds: number) => void;
  families(): readonly Family[];
}

interface Times {
  /** Calls within each bound and not within the one before; the last one has none. */
  readonly counts: number[];
  readonly failures: Map<Code, number>;
  seconds: number;
}

const codeNames = new Map<number, string>(Object.entries(Code).map(([name, code]) => [code, name]));

function histogramOf(rpc: string, { counts, seconds }: Times): readonly Sample[] {
  let count = 0;
  const buckets = counts.map((own, index): Sample => {
    count += own;
    return { suffix: "_bucket", labels: { rpc, le: String(bounds[index] ?? "+Inf") }, value: count };
  });
  return [
    ...buckets,
    { suffix: "_sum", labels: { rpc }, value: seconds },
    { suffix: "_count", labels: { rpc }, value: count },
  ];
}

export function createRpcTimes(): RpcTimes {
  const byRpc = new Map<string, Times>();
  return {
    add(rpc, code, seconds) {
      const times = byRpc.get(rpc) ?? {
        counts: Array.from({ length: bounds.length + 1 }, () => 0),
        failures: new Map(),
        seconds: 0,
      };
      byRpc.set(rpc, times);
      const bucket = bounds.findIndex((bound) => seconds <= bound);
      const index = bucket === -1 ? bounds.length : bucket;
      times.counts[index] = (times.counts[index] ?? 0) + 1;
      times.seconds += seconds;
      if (code !== Code.Ok) times.failures.set(code, (times.failures.get(code) ?? 0) + 1);
    },
    families() {
      const all = [...byRpc];
      const failures = all.flatMap(([rpc, times]) =>
        Array.from(times.failures, ([code, value]) => ({ labels: { rpc, code: codeNames.get(code) ?? "" }, value })),
      );
      return [
        {
          name: "berth_rpc_duration_seconds",
          help: "Time from a call to its answer; streams until their end.",
          type: "histogram",
          samples: all.flatMap(([rpc, times]) => histogramOf(rpc, times)),
        },
        {
          name: "berth_rpc_errors_total",
          help: "Calls answered with an error, by its gRPC code.",
          type: "counter",
          samples: failures,
        },
      ];
    },
  };
}
