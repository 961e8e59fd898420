import { parseArgs } from "node:util";
import type { ParseArgsConfig } from "node:util";
import { pino } from "pino";
import type { Logger } from "../cri-api/index.ts";
import { ConfigError, loadConfig, readEnvironment } from "./config.ts";
import type { Config, ConfigFlags } from "./config.ts";
import { configTemplate } from "./config-template.ts";
import { startDaemon } from "./daemon.ts";
import { readVersion } from "./version.ts";

const usage = `Usage: berth <command> [flags]

Commands:
  serve     answer kubelet on the CRI socket until SIGTERM; containers outlive it
  doctor    say what on this node is wrong or missing, what it means, and the cure
  images    list, pull, verify, import, export, … images: see berth images --help
  wipe      remove all pods, containers, images and state of this node; no daemon may run
  version   print the version

Flags of serve, doctor and wipe:
  --config FILE     configuration (default /etc/berth/berth.toml, if it is there)
  --root DIR        persistent state
  --state DIR       volatile state
  --socket PATH     where to listen
  --log-level LEVEL debug, info, warn or error
  --config-check    report everything that is wrong with the configuration, and exit
  --config-default  print the default configuration with comments, and exit
Flag of doctor:
  --json            a list of findings instead of text
Flag of wipe:
  --force           kill running containers, and go on past what cannot be taken down

Exit codes: 0 done; 1 failed, something is broken, or a stop was forced; 2 wrong command line.
serve stops on SIGTERM or SIGINT and lets calls in flight end for up to 10 s; a second signal ends it at once.
`;

/** Longest time a stop may take: the grace for calls, and as much again for the rooms. */
const forceExitAfterMs = 25_000;

function stopOnSignals(stopServing: () => Promise<void>, log: Logger): void {
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
    stopServing().then(
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

function createLog(config: Config): Logger {
  return pino({ level: config.logLevel, base: null }, pino.destination({ fd: 2, sync: true }));
}

// The commands that need the rooms load them, so that checking a configuration needs no built addon.
async function serve(config: Config): Promise<void> {
  const log = createLog(config);
  process.on("unhandledRejection", (thrown) => log.error({ err: thrown }, "unhandled rejection"));
  const environment = readEnvironment();
  const { socket } = config;
  try {
    const { raisePriority } = await import("../native/index.ts");
    const { claimDirectories } = await import("./claim.ts");
    const { createNotify } = await import("./notify.ts");
    const { startWatchdog } = await import("./watchdog.ts");
    const { openRooms } = await import("./wiring.ts");
    if (!(await raisePriority())) log.info({}, "answers may wait for a processor while pods start: no CAP_SYS_NICE");
    const notify = createNotify(environment, log);
    const daemon = await startDaemon({
      socket,
      privateDirectories: [config.root, config.state, config.cni.cacheDir],
      log,
      openRooms: async () => {
        await claimDirectories(config);
        return await openRooms({ config, environment, log });
      },
    });
    const { watchdogTimeoutMs: timeoutMs } = environment;
    const watchdog = timeoutMs === undefined ? undefined : startWatchdog({ socket, timeoutMs, notify, log });
    stopOnSignals(async () => {
      notify("STOPPING=1");
      await watchdog?.[Symbol.asyncDispose]();
      await daemon.stop();
    }, log);
    notify("READY=1");
  } catch (thrown) {
    log.error({ err: thrown }, "cannot start");
    process.exitCode = 1;
    setTimeout(() => process.exit(1), forceExitAfterMs).unref(); // a part that did not open may hold the loop
  }
}

async function diagnose(config: Config, { json }: Flags): Promise<void> {
  const { examine } = await import("./doctor/doctor.ts");
  const { renderFindings } = await import("./doctor/finding.ts");
  const { createMachine } = await import("./doctor/machine.ts");
  const findings = await examine(createMachine(readEnvironment()), config);
  process.stdout.write(json === true ? `${JSON.stringify(findings, undefined, 2)}\n` : renderFindings(findings));
  if (findings.some((finding) => finding.level === "fail")) process.exitCode = 1;
}

async function wipeNode(config: Config, { force }: Flags): Promise<void> {
  const { claimDirectories } = await import("./claim.ts");
  const { refuseLiveListener } = await import("./listener.ts");
  const { openServices } = await import("./wiring.ts");
  const { wipe, WipeRefused } = await import("./wipe.ts");
  const log = createLog(config);
  try {
    await refuseLiveListener(config.socket);
    await claimDirectories(config);
    const report = await wipe({
      config,
      openServices: () => openServices({ config, environment: readEnvironment(), log }),
      isForced: force === true,
      log,
    });
    process.stdout.write(`${report.podSandboxes} pods and ${report.images} images removed\n`);
    for (const failure of report.failures) process.stderr.write(`berth: ${failure}\n`);
    if (report.failures.length > 0) process.exitCode = 1;
  } catch (thrown) {
    const what = thrown instanceof WipeRefused ? "nothing was wiped" : "wipe failed";
    process.stderr.write(`berth: ${what}: ${thrown instanceof Error ? thrown.message : String(thrown)}\n`);
    process.exitCode = 1;
  }
}

type Flags = ConfigFlags & {
  readonly "config-check"?: boolean | undefined;
  readonly "config-default"?: boolean | undefined;
  readonly json?: boolean | undefined;
  readonly force?: boolean | undefined;
};

interface Command {
  readonly options: NonNullable<ParseArgsConfig["options"]>;
  run(config: Config, flags: Flags): Promise<void>;
}

const configOptions = {
  config: { type: "string" },
  root: { type: "string" },
  state: { type: "string" },
  socket: { type: "string" },
  "log-level": { type: "string" },
  "config-check": { type: "boolean" },
  "config-default": { type: "boolean" },
} as const;

const commands: Partial<Record<string, Command>> = {
  serve: { options: configOptions, run: serve },
  doctor: { options: { ...configOptions, json: { type: "boolean" } }, run: diagnose },
  wipe: { options: { ...configOptions, force: { type: "boolean" } }, run: wipeNode },
};

/** Runs a command with its configuration, or answers what its flags ask about that. */
async function runCommand(command: Command, flags: Flags): Promise<void> {
  if (flags["config-default"] === true) return void process.stdout.write(configTemplate);
  try {
    const config = await loadConfig(flags);
    if (flags["config-check"] === true) process.stdout.write("berth: ok\n");
    else await command.run(config, flags);
  } catch (thrown) {
    if (!(thrown instanceof ConfigError)) throw thrown;
    process.stderr.write(thrown.issues.map((issue) => `berth: ${issue}\n`).join(""));
    process.exitCode = 1;
  }
}

function refuse(reason: string): void {
  process.stderr.write(`${reason === "" ? "" : `berth: ${reason}\n\n`}${usage}`);
  process.exitCode = 2;
}

/** Runs one command; sets the exit code: 1 for a failure, 2 for a wrong command line. */
async function main([name = "", ...args]: readonly string[]): Promise<void> {
  if (name === "images") {
    const { runImages } = await import("./images/command.ts");
    process.exitCode = await runImages(args, { out: process.stdout, err: process.stderr });
    return;
  }
  if ([name, ...args].some((arg) => arg === "--help" || arg === "-h")) return void process.stdout.write(usage);
  if (name === "version" && args.length === 0) return void process.stdout.write(`berth ${await readVersion()}\n`);
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (command === undefined) return refuse(name === "" ? "" : `"${name}" is no command`);
  let flags: Flags;
  try {
    ({ values: flags } = parseArgs({ args, options: command.options, strict: true }));
  } catch (thrown) {
    return refuse(thrown instanceof Error ? thrown.message : String(thrown));
  }
  await runCommand(command, flags);
}

await main(process.argv.slice(2));
