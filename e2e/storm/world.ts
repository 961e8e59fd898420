import { Code, CriError, type Init, type MethodName, type Methods } from "../../cri-api/index.ts";
import type { TestNode } from "../harness/test-node.ts";

/** What the clients have been promised of one container. */
export interface ContainerFacts {
  readonly id: string;
  /** What it ends with by itself. */
  readonly exitCode: number | undefined;
}

/** What the clients have been promised of one pod. */
export interface PodFacts {
  readonly id: string;
  readonly containers: Map<string, ContainerFacts>;
}

/** A name that pods of the storm have, one after the other. */
export interface Slot {
  readonly name: string;
  readonly hostPort: number;
  attempt: number;
  pod: PodFacts | undefined;
}

/** The daemon, its clients' common knowledge, and the kills between them. */
export interface World {
  readonly node: TestNode;
  readonly runtimeHandler: string;
  readonly slots: readonly [Slot, ...Slot[]];
  /** Pods and containers whose end or removal was asked for: from then on they may be anything or nothing. */
  readonly touched: Set<string>;
  /** Calls that have had an answer, by method and outcome. */
  readonly outcomes: ReadonlyMap<string, number>;
  readonly callCount: () => number;
  /** Answers that no caller should get. */
  readonly wrongAnswers: string[];
  /** The answer, undefined for a refusal that can be in a storm. A call that a kill cut short is made again. */
  call<Name extends MethodName>(
    name: Name,
    request: Init<Methods[Name]["request"]>,
    timeoutMs?: number,
  ): Promise<Methods[Name]["response"] | undefined>;
  /** Lets no new call begin, kills with the old ones at work, and does `between` before it lets the calls go on. */
  killDaemon(between: () => Promise<void>): Promise<void>;
}

/** Refusals that others' calls can be the reason of. */
const refusals: ReadonlySet<Code> = new Set([Code.NotFound, Code.FailedPrecondition, Code.AlreadyExists, Code.Aborted]);

export function createWorld(node: TestNode, runtimeHandler: string, slots: World["slots"]): World {
  const outcomes = new Map<string, number>();
  const wrongAnswers: string[] = [];
  const inFlight = new Set<Promise<unknown>>();
  let gate = Promise.resolve();
  let isDown = false;
  let count = 0;

  async function attempt<Name extends MethodName>(
    name: Name,
    request: Init<Methods[Name]["request"]>,
    timeoutMs: number,
  ): Promise<Methods[Name]["response"] | "lost" | undefined> {
    try {
      const answer = await node.daemon.client.call(name, request, { timeoutMs });
      tell(name, "ok");
      return answer;
    } catch (thrown) {
      if (!(thrown instanceof CriError)) throw thrown;
      const code = Object.entries(Code).find(([, number]) => number === thrown.code)?.[0] ?? "?";
      tell(name, code);
      if (isDown && (thrown.code === Code.Unavailable || thrown.code === Code.Canceled)) return "lost";
      const isImpatience = thrown.code === Code.DeadlineExceeded && timeoutMs < patienceMs;
      if (!refusals.has(thrown.code) && !isImpatience) wrongAnswers.push(`${name}: ${code}: ${thrown.message}`);
      return undefined;
    }
  }

  function tell(name: MethodName, outcome: string): void {
    count += 1;
    outcomes.set(`${name} ${outcome}`, (outcomes.get(`${name} ${outcome}`) ?? 0) + 1);
  }

  return {
    node,
    runtimeHandler,
    slots,
    touched: new Set(),
    outcomes,
    wrongAnswers,
    callCount: () => count,
    async call(name, request, timeoutMs = patienceMs) {
      for (;;) {
        await gate;
        const work = attempt(name, request, timeoutMs);
        inFlight.add(work);
        const answer = await work.finally(() => inFlight.delete(work));
        if (answer !== "lost") return answer;
      }
    },
    async killDaemon(between) {
      const { promise, resolve } = Promise.withResolvers<void>();
      gate = promise;
      isDown = true;
      await node.daemon.stop("SIGKILL");
      await Promise.allSettled(inFlight);
      isDown = false;
      await node.daemon.start();
      await between();
      resolve();
    },
  };
}

/** Longer than any call may take, on a machine that does much else. */
const patienceMs = 120_000;
