import { inspect, parseArgs } from "node:util";
import { findContradictions } from "./harness/agreement.ts";
import { waitForNoLeaks } from "./harness/leaks.ts";
import { isOfNode } from "./harness/network.ts";
import { createRandom, type Random } from "./harness/random.ts";
import { createReport, type Report, runMain } from "./harness/report.ts";
import { openTestNode, removePods } from "./harness/test-node.ts";
import { actOnce } from "./storm/actions.ts";
import { findBrokenPromises } from "./storm/promises.ts";
import { createWorld, type Slot, type World } from "./storm/world.ts";

const usage = `usage: npm run storm -- [options]
Clients make calls at random, some of them impatient, and the daemon is killed under them again and again.
  --seed N       what each client does follows from it (default: the time)
  --calls N      in all (default 2000)
  --clients N    at a time (default 8)
  --pods N       names that pods have (default 30)
  --runtime NAME crun (default) or runc
`;

/** Calls between two kills, at least and at most. */
const calm = { least: 15, most: 120 } as const;

interface Storm {
  readonly world: World;
  readonly report: Report;
  readonly calls: number;
}

/** One client: what it does next follows from its seed alone. */
async function runClient({ world, calls }: Storm, random: Random): Promise<void> {
  while (world.callCount() < calls) {
    await actOnce(world, random).catch((thrown: unknown) => world.wrongAnswers.push(inspect(thrown)));
  }
}

/** Kills the daemon after so many calls, and looks at what the next one makes of it. */
async function runKiller({ world, report, calls }: Storm, random: Random): Promise<void> {
  for (;;) {
    const nextAt = world.callCount() + calm.least + random.below(calm.most - calm.least);
    while (world.callCount() < Math.min(nextAt, calls)) await sleep(1);
    if (world.callCount() >= calls) return;
    await sleep(random.below(40));
    const at = `kill after ${world.callCount()} calls`;
    await world.killDaemon(async () => {
      await report.check(at, () => lookAround(world));
    });
  }
}

async function lookAround(world: World): Promise<void> {
  const { daemon, empty } = world.node;
  const found = [...(await findContradictions(daemon, empty)), ...(await findBrokenPromises(world))];
  if (found.length > 0) throw new Error(found.join("\n    "));
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Removes all of the storm; then nothing may be left of it. */
async function clearUp(world: World): Promise<void> {
  const { daemon, empty } = world.node;
  const { client, workspace } = daemon;
  await removePods(daemon);
  const { containers } = await client.call("ListContainers");
  if (containers.length > 0) throw new Error(`containers without a pod: ${containers.map(({ id }) => id).join(" ")}`);
  for (const { id } of (await client.call("ListImages")).images) {
    await client.call("RemoveImage", { image: { image: id } });
  }
  await client.call("PullImage", { image: { image: world.node.image("busybox") } }); // it was there before
  const isExpected = (line: string): boolean =>
    isOfNode(workspace, line) || line.startsWith(`processes: ${daemon.pid} `);
  const left = await waitForNoLeaks(empty, { workspace, ids: client.seenIds }, { isExpected });
  if (left.length > 0) throw new Error(`left: ${left.join("\n    ")}`);
}

function makeSlots(count: number): World["slots"] {
  const slot = (number: number): Slot => ({
    name: `pod${number}`,
    hostPort: 21_000 + number,
    attempt: 0,
    pod: undefined,
  });
  return [slot(0), ...Array.from({ length: count - 1 }, (_, index) => slot(index + 1))];
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      seed: { type: "string", default: String(Date.now() % 1_000_000) },
      calls: { type: "string", default: "2000" },
      clients: { type: "string", default: "8" },
      pods: { type: "string", default: "30" },
      runtime: { type: "string", default: "crun" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return void process.stdout.write(usage);
  const seed = Number(values.seed);
  console.log(`storm of ${values.calls} calls by ${values.clients} clients on ${values.pods} pods, seed ${seed}`);
  await using node = await openTestNode();
  const world = createWorld(node, values.runtime, makeSlots(Number(values.pods)));
  const report = createReport();
  const storm = { world, report, calls: Number(values.calls) };
  const clients = Array.from({ length: Number(values.clients) }, (_, index) =>
    runClient(storm, createRandom(seed * 1000 + index)),
  );
  await Promise.all([runKiller(storm, createRandom(seed)), ...clients]);

  await report.check("every answer is one that a caller can be given", async () => {
    if (world.wrongAnswers.length > 0) throw new Error(world.wrongAnswers.join("\n    "));
  });
  await report.check("all is true when the storm is over", () => lookAround(world));
  await report.check("all can be removed and nothing is left", () => clearUp(world));
  for (const [outcome, count] of [...world.outcomes].sort(([a], [b]) => a.localeCompare(b)))
    console.log(`  ${outcome}: ${count}`);
  if (!report.conclude("storm")) process.exitCode = 1;
}

runMain(main);
