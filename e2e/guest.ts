import { parseArgs } from "node:util";
import { buildGuest, runInGuest } from "./guest/machine.ts";
import { makePayload } from "./guest/payload.ts";

const usage = `npm run guest [-- OPTIONS] -- COMMAND [ARGUMENTS]: runs it on an emulated Debian 13 node with Berth as a service
  --minutes N   the guest is ended after so long (default 60)
One argument alone is a line for sh. Known inside: crictl, critest, ginkgo, conformance (see its --help) and node-checks [--runtime crun|runc].
What COMMAND writes into /results is in .cache/guest/results afterwards, the journal and the console with it.`;

const { values: options, positionals: command } = parseArgs({
  allowPositionals: true,
  options: { minutes: { type: "string", default: "60" }, help: { type: "boolean", default: false } },
});

async function main(): Promise<void> {
  if (options.help || command.length === 0) return console.log(usage);
  const base = await buildGuest(); // first: a new one clears the folder
  const payload = await makePayload(command);
  process.exitCode = await runInGuest(base, payload, { timeoutMs: Number(options.minutes) * 60_000 });
}

await main();
