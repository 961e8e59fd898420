import { parseArgs } from "node:util";
import { buildGuest, copyDisk, type GuestRun, runInGuest } from "./guest/machine.ts";
import { makePayload } from "./guest/payload.ts";

const usage = `npm run e2e:guest [-- OPTIONS]: Berth as the service of an emulated Debian 13 node
  --only node|reboots   what a running node shows, or what a shutdown and a power cut leave
  --short               a dozen specs of critest and the life, limits and statistics of containers: what lands with every change`;

const { values: options } = parseArgs({
  options: {
    only: { type: "string" },
    short: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});

const timeoutMs = 60 * 60_000;
/** Ten times what a quiet machine takes. */
const shortTimeoutMs = 45 * 60_000;
const sums = { passed: 0, failed: 0 };

/** Adds up what the programs in the guest conclude; one that fails without a word of why counts as one failure. */
async function run(title: string, base: string, payload: string, more: Partial<GuestRun> = {}): Promise<void> {
  console.log(`== ${title}`);
  const before = sums.failed;
  const onLine = (line: string): void => {
    const found = /^guest [^:]*: (\d+) passed, (\d+) failed/u.exec(line);
    sums.passed += Number(found?.[1] ?? 0);
    sums.failed += Number(found?.[2] ?? 0);
  };
  const code = await runInGuest(base, payload, { security: "apparmor", timeoutMs, ...more, onLine });
  if (code !== 0 && sums.failed === before) sums.failed++;
}

async function runShort(base: string): Promise<void> {
  const command = "conformance --short; a=$?; node-checks --short && exit $a";
  await run("specs and containers", base, await makePayload([command]), { timeoutMs: shortTimeoutMs });
}

async function runNode(base: string): Promise<void> {
  const command = "node-checks --runtime crun; a=$?; node-checks --runtime runc && exit $a";
  await run("both runtimes and the service", base, await makePayload([command]));
}

async function runReboots(base: string): Promise<void> {
  const payload = await makePayload(["reboot-checks"]);
  const disk = await copyDisk(base);
  await run("a first boot", base, payload, { disk });
  await run("after a shutdown", base, payload, { disk, endsByPowerCut: true });
  await run("after a power cut", base, payload, { disk });
}

async function main(): Promise<void> {
  if (options.help) return console.log(usage);
  const base = await buildGuest("apparmor");
  if (options.short) await runShort(base);
  if (!options.short && options.only !== "reboots") await runNode(base);
  if (!options.short && options.only !== "node") await runReboots(base);
  console.log(`guest: ${sums.passed} passed, ${sums.failed} failed`);
  if (sums.failed > 0 || sums.passed === 0) process.exitCode = 1;
}

await main();
