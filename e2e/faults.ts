import { writeFile } from "node:fs/promises";
import path from "node:path";
import { parseArgs } from "node:util";
import { buildInterrupter, interrupt, type Interrupter, type Point } from "./faults/interrupter.ts";
import { type Fault, faultsOf, labelOf } from "./faults/points.ts";
import { clear, type Cut, isCutShort, type ScenarioName, scenarios, type Stage } from "./faults/scenarios.ts";
import { findContradictions } from "./harness/agreement.ts";
import { findTraces, type Traces, waitForNoLeaks } from "./harness/leaks.ts";
import { isOfNode } from "./harness/network.ts";
import { createRandom } from "./harness/random.ts";
import { cacheDirectory } from "./harness/repository.ts";
import { createReport, runMain } from "./harness/report.ts";
import { openTestNode, type TestNode } from "./harness/test-node.ts";
import { waitUntil } from "./harness/wait-until.ts";

const usage = `usage: npm run faults -- [options]
Kills the daemon at each point where a call touches the world, starts it again, looks whether all is true and nothing
is left, and makes the call again.
  --runtime NAME    crun (default) or runc
  --call NAME       only this call; can be given again
  --sample N        N points of all, chosen by the seed
  --seed N          default: the time
  --only TEXT       only points whose name has this text
  --stop-at-failure leaves the daemon's log of the fault in .cache/faults/failed.log
  --list            only tell the points
`;

/** Longer than what a call does after its answer. */
const afterglowMs = 300;

interface Trial {
  readonly node: TestNode;
  readonly program: string;
  readonly runtimeHandler: string;
  /** What was there before the first pod, and what points that failed have left: that is told once. */
  empty: Traces;
  nextNumber: number;
}

/** One call undisturbed, and the points that it came by. */
async function record(trial: Trial, name: ScenarioName): Promise<readonly Point[]> {
  const { node } = trial;
  const cut: Cut = await scenarios[name](stageOf(trial, name));
  const points: Point[] = [];
  {
    const { watch, outcome } = await makeWatched(trial, cut, (point) => {
      points.push({ ...point, call: labelOf(node.daemon.workspace, point.call) });
      return "continue";
    });
    await using _watch = watch;
    await outcome;
    await new Promise((resolve) => setTimeout(resolve, afterglowMs));
  }
  await clear(node);
  return points;
}

function stageOf(trial: Trial, name: ScenarioName): Stage {
  const number = trial.nextNumber++;
  const { node, runtimeHandler } = trial;
  const dieDuring: Stage["dieDuring"] = (call, where) =>
    killAt(trial, { when: "after", call: where, occurrence: 1 }, { call: async () => void (await call()) });
  return { node, runtimeHandler, number, name: `${name.toLowerCase()}-${number}`, dieDuring };
}

/** Makes a call with the daemon watched that it is made to, or that it starts. */
async function makeWatched(
  { node, program }: Trial,
  cut: Cut,
  decide: Parameters<typeof interrupt>[2],
): Promise<{ readonly watch: Interrupter; readonly outcome: Promise<void> }> {
  const { pid } = node.daemon;
  if (!cut.startsDaemon) return { watch: await interrupt(program, pid, decide), outcome: cut.call() };
  const outcome = cut.call();
  outcome.catch(() => undefined); // it may fail before it is waited for
  await waitUntil("a new daemon", async () => (node.daemon.pid === pid ? undefined : true));
  return { watch: await interrupt(program, node.daemon.pid, decide), outcome };
}

/** Makes the call, kills the daemon at the fault, and looks at what the next one makes of it. */
async function injectFault(trial: Trial, fault: Fault): Promise<void> {
  const { node, empty } = trial;
  const { daemon } = node;
  await clear(node); // of a fault before, whose outcome was bad
  const cut: Cut = await scenarios[fault.scenario](stageOf(trial, fault.scenario));
  await killAt(trial, fault, cut);
  await daemon.start();
  const problems = (await findContradictions(daemon, empty)).map((line) => `after the restart: ${line}`);
  await cut.call().catch((thrown: unknown) => problems.push(`made again: ${String(thrown)}`));
  problems.push(...(await findContradictions(daemon, empty)).map((line) => `after the second call: ${line}`));
  await clear(node);
  const { workspace } = daemon;
  const isExpected = (line: string): boolean =>
    isOfNode(workspace, line) || line.startsWith(`processes: ${daemon.pid} `);
  problems.push(
    ...(await waitForNoLeaks(empty, { workspace, ids: daemon.client.seenIds }, { isExpected })).map(
      (line) => `when all is removed: ${line}`,
    ),
  );
  if (problems.length > 0) throw new Error(problems.join("\n    "));
}

async function killAt(trial: Trial, fault: Pick<Fault, "when" | "call" | "occurrence">, cut: Cut): Promise<void> {
  const { daemon } = trial.node;
  let seen = 0;
  const { watch, outcome } = await makeWatched(trial, cut, (point) => {
    if (point.when !== fault.when || labelOf(daemon.workspace, point.call) !== fault.call) return "continue";
    seen += 1;
    return seen === fault.occurrence ? "kill" : "continue";
  });
  await using _watch = watch;
  try {
    await outcome;
  } catch (thrown) {
    if (!isCutShort(thrown)) throw thrown;
  }
  // What comes after the answer may still be the point; threads can have taken another order, and then it never comes.
  await Promise.race([watch.ended, new Promise((resolve) => setTimeout(resolve, afterglowMs))]);
  await daemon.stop("SIGKILL");
  await watch.ended;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      runtime: { type: "string", default: "crun" },
      call: { type: "string", multiple: true, default: Object.keys(scenarios) },
      sample: { type: "string" },
      seed: { type: "string", default: String(Date.now() % 1_000_000) },
      only: { type: "string", default: "" },
      "stop-at-failure": { type: "boolean", default: false },
      list: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return void process.stdout.write(usage);
  const program = await buildInterrupter();
  await using node = await openTestNode();
  const trial: Trial = { node, program, runtimeHandler: values.runtime, empty: node.empty, nextNumber: 0 };
  const faults: Fault[] = [];
  for (const name of Object.keys(scenarios) as ScenarioName[]) {
    if (values.call.includes(name)) faults.push(...faultsOf(name, await record(trial, name)));
  }
  const wanted = faults.filter((fault) => fault.name.includes(values.only));
  console.log(`${wanted.length} points with ${values.runtime}, seed ${values.seed}`);
  if (values.list) return wanted.forEach(({ name }) => console.log(name));
  const random = createRandom(Number(values.seed));
  const chosen = values.sample === undefined ? wanted : random.sample(wanted, Number(values.sample));
  const report = createReport();
  for (const fault of chosen) {
    const { length: start } = await node.daemon.readLog();
    if (await report.check(fault.name, () => injectFault(trial, fault))) continue;
    await writeFile(path.join(cacheDirectory, "faults/failed.log"), (await node.daemon.readLog()).slice(start));
    if (values["stop-at-failure"]) break;
    const { workspace, client } = node.daemon;
    trial.empty = await findTraces({ workspace, ids: client.seenIds });
  }
  if (!report.conclude("faults")) process.exitCode = 1;
}

runMain(main);
