import { mkdir, writeFile } from "node:fs/promises";
import { loadavg } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { startBerth } from "./bench/berth.ts";
import { startContainerd } from "./bench/containerd.ts";
import { type Contestant, joinContestant } from "./bench/contestant.ts";
import { createFloor } from "./bench/floor.ts";
import { type BenchImages, pushBenchImages } from "./bench/images.ts";
import { runLifecycle } from "./bench/lifecycle.ts";
import { createForgetfulRecorder, createRecorder, type Recorder } from "./bench/measurements.ts";
import { type PodSettings, removePods } from "./bench/pods.ts";
import { measureMemory, type Moment, populate, runLists } from "./bench/population.ts";
import { runManyPulls, runPull, runThrottledPulls } from "./bench/pull.ts";
import {
  type BenchResult,
  describeMachine,
  floorRows,
  type Recordings,
  renderTable,
  resultRows,
} from "./bench/result.ts";
import { runSteadyState } from "./bench/steady.ts";
import { sweep } from "./bench/sweep.ts";
import type { SyntheticLayout } from "./bench/synthetic-images.ts";
import { startThrottle } from "./bench/throttle.ts";
import { findTraces, waitForNoLeaks } from "./harness/leaks.ts";
import { removeNodeNetwork, writeConflist } from "./harness/network.ts";
import { startRegistry } from "./harness/registry.ts";
import { repository } from "./harness/repository.ts";
import { createWorkspace, type Workspace } from "./harness/workspace.ts";

const usage = `npm run bench [-- OPTIONS]: Berth beside Debian 12's containerd, with the same crun, network and images
  --rounds N            rounds of the lifecycle and of the lists (default 15)
  --pull-rounds N       rounds of each kind of pull (default 3)
  --only PART[,PART]    of lifecycle, lists, memory, pull (default these), and pull-throttled: from a registry that gives
                        20 MB/s per connection; pull-many: 20 images at once; steady: a full node at rest
  --minutes N           of steady state for each (default 5)
  --json FILE           writes everything that was measured
  --seccomp             containers with the runtime's own seccomp profile
  --base DIR            another working tree of Berth, installed and built, takes part as "base"
  --alone               without containerd; with --base, Berth is compared with that
  --socket PATH --name NAME --image REFERENCE [--pid PID]
                        another server takes part: its socket, what to call it, an image that it can pull and that
                        has a shell, and its process, without which its memory is not measured
  --node-flag FLAG      a flag for the Node that runs Berth, beside its unit's, such as --cpu-prof; may be repeated
  --env NAME=VALUE      the same for its environment`;

const usualParts = ["lifecycle", "lists", "memory", "pull"] as const;
const parts = [...usualParts, "pull-throttled", "pull-many", "steady"] as const;
type Part = (typeof parts)[number];
/** The parts that pull: what, how, and beside how many pods. */
const pullParts: readonly {
  readonly part: Part;
  readonly layouts: readonly SyntheticLayout[];
  readonly run: (contestant: Contestant, recorder: Recorder, interrupted: AbortSignal) => Promise<void>;
  readonly pods: number;
}[] = [
  { part: "pull", layouts: ["large-image"], run: runPull, pods: 0 },
  { part: "pull-throttled", layouts: ["large-image", "one-layer"], run: runThrottledPulls, pods: 0 },
  { part: "pull-many", layouts: ["small-images"], run: runManyPulls, pods: 20 },
];
const warmUpRounds = 2;
/** A daemon that has been up for two minutes has been asked for its lists that often. */
const warmUpListRounds = 10;
/** Nobody else listens in the benchmark's network namespace. */
const freeMetricsPort = 9_100;
/** What kubelet puts on a node at most. */
const fullNodePods = 110;
const throttledBytesPerSecond = 20_000_000;

const { values: options } = parseArgs({
  options: {
    rounds: { type: "string", default: "15" },
    "pull-rounds": { type: "string", default: "3" },
    only: { type: "string", default: usualParts.join(",") },
    minutes: { type: "string", default: "5" },
    json: { type: "string" },
    seccomp: { type: "boolean", default: false },
    base: { type: "string" },
    alone: { type: "boolean", default: false },
    socket: { type: "string" },
    name: { type: "string", default: "other" },
    image: { type: "string" },
    pid: { type: "string" },
    "node-flag": { type: "string", multiple: true, default: [] },
    env: { type: "string", multiple: true, default: [] },
    help: { type: "boolean", default: false },
  },
});

/** Everything a part of the benchmark works with. */
interface Bench {
  readonly settings: PodSettings;
  readonly contestants: readonly Contestant[];
  readonly recorderOf: (contestant: Contestant) => Recorder;
  readonly floorRecorder: Recorder;
  readonly images: BenchImages;
  readonly interrupted: AbortSignal;
}

/** Lets every one have its turn in every round, in an order that changes from round to round. */
async function alternate<T>(
  bench: Bench,
  rounds: number,
  takers: readonly T[],
  take: (taker: T, round: number) => Promise<void>,
): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    for (const index of takers.keys()) {
      bench.interrupted.throwIfAborted();
      const taker = takers[(index + round) % takers.length];
      if (taker !== undefined) await take(taker, round);
    }
  }
}

async function benchLifecycle(bench: Bench, rounds: number): Promise<void> {
  const floor = await createFloor(bench.settings.workspace, bench.images.rootDirectory);
  const forgetful = createForgetfulRecorder();
  await alternate(bench, warmUpRounds + rounds, [...bench.contestants, floor], async (taker, round) => {
    const name = `round${round}`;
    const isWarm = round >= warmUpRounds;
    if ("run" in taker) return taker.run(name, isWarm ? bench.floorRecorder : forgetful);
    await runLifecycle(bench.settings, taker, name, isWarm ? bench.recorderOf(taker) : forgetful);
  });
}

/** All servers are full at the same time, so that they share the machine's memory and can take turns. */
async function benchFull(bench: Bench, rounds: number, wanted: ReadonlySet<Part>): Promise<void> {
  const measure = (when: Moment): Promise<void> =>
    alternate(bench, wanted.has("memory") ? 1 : 0, bench.contestants, (contestant) =>
      measureMemory(contestant, bench.recorderOf(contestant), when),
    );
  await measure("idle");
  await alternate(bench, 1, bench.contestants, (contestant) => populate(bench.settings, contestant));
  await measure("full");
  if (wanted.has("lists")) {
    const forgetful = createForgetfulRecorder();
    await alternate(bench, warmUpListRounds + rounds, bench.contestants, (contestant, round) =>
      runLists(contestant, round < warmUpListRounds ? forgetful : bench.recorderOf(contestant)),
    );
    await measure("at work");
  }
  await alternate(bench, 1, bench.contestants, ({ client }) => removePods(client));
}

/** One after the other: each has the machine to itself, its pods included. */
async function benchSteadyState(bench: Bench, minutes: number): Promise<void> {
  const { settings, interrupted } = bench;
  await alternate(bench, 1, bench.contestants, async (contestant) => {
    await populate(settings, contestant, fullNodePods);
    await runSteadyState(contestant, bench.recorderOf(contestant), { minutes, interrupted });
    await removePods(contestant.client);
  });
}

async function benchPulls(bench: Bench, rounds: number, wanted: ReadonlySet<Part>): Promise<void> {
  const { settings, contestants, recorderOf, interrupted } = bench;
  for (const { part, run, pods } of pullParts.filter((each) => wanted.has(each.part))) {
    console.log(`${part}: ${rounds} rounds`);
    await alternate(bench, 1, contestants, (contestant) => populate(settings, contestant, pods));
    await alternate(bench, rounds, contestants, (contestant) => run(contestant, recorderOf(contestant), interrupted));
    await alternate(bench, 1, contestants, ({ client }) => removePods(client));
  }
}

async function runParts(bench: Bench, wanted: ReadonlySet<Part>): Promise<void> {
  const rounds = parseCount("rounds", options.rounds);
  for (const { client, image } of bench.contestants) await client.call("PullImage", { image: { image } });
  if (wanted.has("lifecycle")) {
    console.log(`lifecycle: ${warmUpRounds} rounds to warm up, ${rounds} rounds`);
    await benchLifecycle(bench, rounds);
  }
  if (wanted.has("memory") || wanted.has("lists")) {
    console.log("memory and lists: 100 pods in each");
    await benchFull(bench, rounds, wanted);
  }
  await benchPulls(bench, parseCount("pull-rounds", options["pull-rounds"]), wanted);
  if (wanted.has("steady")) {
    const minutes = parseCount("minutes", options.minutes);
    console.log(`steady state: ${fullNodePods} pods, ${minutes} minutes each`);
    await benchSteadyState(bench, minutes);
  }
}

/** Starts all that take part; they end, and their pods before them, when the stack unwinds. */
async function startContestants(
  workspace: Workspace,
  images: BenchImages,
  wanted: ReadonlySet<Part>,
  resources: AsyncDisposableStack,
): Promise<Contestant[]> {
  const contestants: Contestant[] = [];
  const add = (contestant: Contestant): void => {
    contestants.push(resources.use(contestant));
    resources.defer(() => removePods(contestant.client));
  };
  const { "node-flag": nodeFlags, env } = options;
  const metricsPort = wanted.has("steady") ? { metricsPort: freeMetricsPort } : {};
  add(await startBerth(workspace, images, { name: "berth", repository, nodeFlags, env, ...metricsPort }));
  if (!options.alone) add(await startContainerd(workspace, images));
  if (options.base !== undefined) {
    const base = { name: "base", repository: path.resolve(options.base), nodeFlags, env };
    add(await startBerth(workspace, images, base));
  }
  if (options.socket !== undefined) {
    const { image, name, socket: socketPath } = options;
    if (image === undefined) throw new Error("--socket needs --image: the private registry is out of its reach");
    const pid = options.pid === undefined ? undefined : parseCount("pid", options.pid);
    add(await joinContestant({ name, socketPath, pid, image }));
  }
  return contestants;
}

async function measureAll(
  workspace: Workspace,
  wanted: ReadonlySet<Part>,
  interrupted: AbortSignal,
): Promise<BenchResult> {
  const startedAt = new Date().toISOString();
  const loadBefore = loadavg()[0] ?? 0;
  await using resources = new AsyncDisposableStack();
  const registry = resources.use(await startRegistry(path.join(workspace.directory, "registry")));
  const directory = path.join(workspace.directory, "images");
  const throttle = resources.use(await startThrottle(registry.address, throttledBytesPerSecond));
  const addresses = { registry: registry.address, throttle: throttle.address };
  const layouts = new Set(pullParts.filter(({ part }) => wanted.has(part)).flatMap((each) => each.layouts));
  const images = await pushBenchImages(directory, addresses, layouts);
  await writeConflist(workspace);
  const contestants = await startContestants(workspace, images, wanted, resources);
  for (const { name, version } of contestants) console.log(`${name}: ${version}`);
  const recorders = new Map(contestants.map(({ name }) => [name, createRecorder()]));
  const recordings: Recordings = { contestants: recorders, floor: createRecorder() };
  const recorderOf = ({ name }: Contestant): Recorder => recorders.get(name) ?? createForgetfulRecorder();
  const settings = { workspace, withSeccomp: options.seccomp };
  await runParts({ settings, contestants, recorderOf, floorRecorder: recordings.floor, images, interrupted }, wanted);
  return {
    startedAt,
    machine: await describeMachine(loadBefore),
    options,
    versions: Object.fromEntries(contestants.map(({ name, version }) => [name, version])),
    rows: resultRows(recordings),
    floor: floorRows(recordings.floor),
  };
}

function parseCount(name: string, text: string): number {
  const count = Number(text);
  if (!Number.isSafeInteger(count) || count < 1) throw new Error(`--${name} is not a positive number: ${text}`);
  return count;
}

function parseParts(text: string): ReadonlySet<Part> {
  const names = text.split(",");
  const wanted = new Set(parts.filter((part) => names.includes(part)));
  if (wanted.size !== names.length) throw new Error(`--only takes ${parts.join(", ")}, not ${text}`);
  return wanted;
}

/** Runs the benchmark and takes away everything of it, however it ended. */
async function runBench(wanted: ReadonlySet<Part>, interrupted: AbortSignal): Promise<BenchResult> {
  await using workspace = await createWorkspace();
  await using cleanUp = new AsyncDisposableStack();
  cleanUp.defer(() => sweep(workspace));
  cleanUp.defer(() => removeNodeNetwork(workspace));
  const scope = { workspace, ids: new Set<string>() };
  const before = await findTraces(scope);
  const result = await measureAll(workspace, wanted, interrupted);
  await removeNodeNetwork(workspace);
  const isExpected = (line: string): boolean => line.startsWith(`files: ${workspace.directory}/`);
  const left = await waitForNoLeaks(before, scope, { isExpected });
  if (left.length > 0) console.log(`left behind by the servers, swept now:\n${left.join("\n")}`);
  return result;
}

async function main(): Promise<void> {
  if (options.help) return console.log(usage);
  const wanted = parseParts(options.only);
  const interruption = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => interruption.abort(new Error(`interrupted by ${signal}`)));
  }
  const result = await runBench(wanted, interruption.signal);
  console.log(`\n${renderTable(result)}`);
  if (options.json === undefined) return;
  await mkdir(path.dirname(path.resolve(options.json)), { recursive: true });
  await writeFile(options.json, `${JSON.stringify(result, null, 2)}\n`);
}

await main();
