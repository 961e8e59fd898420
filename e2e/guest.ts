import { parseArgs } from "node:util";
import { buildGuest, runInGuest, type SecurityModule } from "./guest/machine.ts";
import { makePayload } from "./guest/payload.ts";

const usage = `npm run guest [-- OPTIONS] -- COMMAND [ARGUMENTS]: runs it on an emulated Debian 13 node with Berth as a service
  --minutes N   the guest is ended after so long (default 60)
  --selinux permissive|enforcing   with Debian's SELinux policy in place of AppArmor
One argument alone is a line for sh. Known inside: crictl, critest, ginkgo, and with a --help each conformance and node-checks.
What COMMAND writes into /results is in .cache/guest/results afterwards, the journal and the console with it.`;

const { values: options, positionals: command } = parseArgs({
  allowPositionals: true,
  options: {
    minutes: { type: "string", default: "60" },
    selinux: { type: "string" },
    help: { type: "boolean", default: false },
  },
});

function securityModule(): SecurityModule {
  switch (options.selinux) {
    case undefined:
      return "apparmor";
    case "permissive":
    case "enforcing":
      return `selinux-${options.selinux}`;
    default:
      throw new Error(`--selinux is permissive or enforcing, not ${options.selinux}`);
  }
}

async function main(): Promise<void> {
  if (options.help || command.length === 0) return console.log(usage);
  const security = securityModule();
  const base = await buildGuest(security); // first: a new one clears the folder
  const payload = await makePayload(command);
  process.exitCode = await runInGuest(base, payload, { security, timeoutMs: Number(options.minutes) * 60_000 });
}

await main();
