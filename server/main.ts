import { parseArgs } from "node:util";
import { pino } from "pino";
import type { Logger } from "../cri-api/index.ts";
import { ConfigError, loadConfig, readEnvironment } from "./config.ts";
import type { Config, ConfigFlags } from "./config.ts";
import { configTemplate } from "./config-template.ts";
import { startDaemon } from "./daemon.ts";
import type { Daemon } from "./daemon.ts";
import { readVersion } from "./version.ts";

const usage = `Usage: berth <command> [flags]

Commands:
  serve     answer kubelet on the CRI socket until SIGTERM; containers outlive it
  doctor    say what this machine lacks to run pods, and the cure
  version   print the version

Flags of serve and doctor:
  --config FILE     configuration (default /etc/berth/berth.toml, if it is there)
  --root DIR        persistent state
  --state DIR       volatile state
  --socket PATH     where to listen
  --log-level LEVEL debug, info, warn or error
  --config-check    report everything that is wrong with the configuration, and exit
  --config-default  print the default configuration with comments, and exit
`;

/** Longest time a stop may take: the grace for calls, and as much again for the rooms. */
const forceExitAfterMs = 25_000;

function stopOnSignals(daemon: Daemon, log: Logger): void {
  let isStopping = false;
  const force = (why: string): never => {
    log.error({ why }, "stopping at once");
    process.exit(1);
  };
  const stop = (signal: string): void => {
    if (isStopping) force(`second signal ${signal}`);
    isStopping = true;
    log.info({ signal }, "stopping");
    setTimeout(() => force("parts did not end in time"), forceExitAfterMs).unref();
    daemon.stop().then(
      () => log.info({}, "stopped"), // the event loop is empty now, and the process ends by itself
      (thrown: unknown) => {
        log.error({ err: thrown }, "stopping failed");
        process.exitCode = 1;
      },
    );
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
}

// The commands that need the rooms load them, so that checking a configuration needs no built addon.
async function serve(config: Config): Promise<void> {
  const log = pino({ level: config.logLevel, base: null }, pino.destination({ fd: 2, sync: true }));
  process.on("unhandledRejection", (thrown) => log.error({ err: thrown }, "unhandled rejection"));
  const environment = readEnvironment();
  try {
    const { openRooms } = await import("./wiring.ts");
    const { notifyReady } = await import("./notify.ts");
    const daemon = await startDaemon({
      socket: config.socket,
      privateDirectories: [config.root, config.state, config.cni.cacheDir],
      log,
      openRooms: () => openRooms({ config, environment, log }),
    });
    stopOnSignals(daemon, log);
    await notifyReady(environment, log);
  } catch (thrown) {
    log.error({ err: thrown }, "cannot start");
    process.exitCode = 1;
    setTimeout(() => process.exit(1), forceExitAfterMs).unref(); // a part that did not open may hold the loop
  }
}

async function diagnose(config: Config): Promise<void> {
  const { examine } = await import("./doctor/doctor.ts");
  const { renderFindings } = await import("./doctor/finding.ts");
  const { createMachine } = await import("./doctor/machine.ts");
  const findings = await examine(createMachine(readEnvironment().path), config);
  process.stdout.write(renderFindings(findings));
  if (findings.some((finding) => finding.level === "fail")) process.exitCode = 1;
}

function parseCommandLine(argv: readonly string[]): ReturnType<typeof parse> | undefined {
  try {
    return parse(argv);
  } catch (thrown) {
    process.stderr.write(`berth: ${thrown instanceof Error ? thrown.message : String(thrown)}\n\n${usage}`);
    return undefined;
  }
}

// oxlint-disable-next-line typescript/explicit-function-return-type -- the type of parseArgs follows from its options
function parse(argv: readonly string[]) {
  return parseArgs({
    args: [...argv],
    allowPositionals: true,
    options: {
      config: { type: "string" },
      root: { type: "string" },
      state: { type: "string" },
      socket: { type: "string" },
      "log-level": { type: "string" },
      "config-check": { type: "boolean", default: false },
      "config-default": { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
}

async function withConfig(flags: ConfigFlags, work: (config: Config) => Promise<void>): Promise<void> {
  try {
    await work(await loadConfig(flags));
  } catch (thrown) {
    if (!(thrown instanceof ConfigError)) throw thrown;
    process.stderr.write(thrown.issues.map((issue) => `berth: ${issue}\n`).join(""));
    process.exitCode = 1;
  }
}

/** Runs one command; sets the exit code: 1 for a failure, 2 for a wrong command line. */
async function main(argv: readonly string[]): Promise<void> {
  const parsed = parseCommandLine(argv);
  const { values, positionals } = parsed ?? { values: undefined, positionals: [] };
  const [command, ...rest] = positionals;
  if (values?.help) return void process.stdout.write(usage);
  if (values?.["config-default"]) return void process.stdout.write(configTemplate);
  if (!values || rest.length > 0) process.exitCode = 2;
  else if (values["config-check"]) await withConfig(values, async () => void process.stdout.write("berth: ok\n"));
  else if (command === "serve") await withConfig(values, serve);
  else if (command === "doctor") await withConfig(values, diagnose);
  else if (command === "version") process.stdout.write(`berth ${await readVersion()}\n`);
  else process.exitCode = 2;
  if (process.exitCode === 2 && parsed) process.stderr.write(usage);
}

await main(process.argv.slice(2));
