import { Code, CriError } from "../../cri-api/index.ts";
import { exportImages, importImages } from "./archive.ts";
import { type Client, connectClient } from "../client.ts";
import { ConfigError, loadConfig } from "../config.ts";
import { inspectImages, listImages } from "./list.ts";
import { type ImagesFlags, imagesUsage, parseFlags, UsageError } from "./options.ts";
import type { Terminal } from "./output.ts";
import { pullImages } from "./pull.ts";
import { pruneImages, removeImages } from "./remove.ts";
import { verifyImages } from "./verify.ts";

/** What a command is given. */
export interface Invocation {
  readonly client: Client;
  readonly names: readonly string[];
  readonly flags: ImagesFlags;
  readonly terminal: Terminal;
}

interface Command {
  readonly run: (invocation: Invocation) => Promise<void>;
  readonly options: Parameters<typeof parseFlags>[1];
  /** How many names it takes, at least and at most. */
  readonly names: readonly [number, number];
}

const many = Number.POSITIVE_INFINITY;
const flag = { type: "boolean" } as const;
const value = { type: "string" } as const;
const commands: Readonly<Record<string, Command>> = {
  list: { run: listImages, names: [0, 1], options: { json: flag } },
  pull: { run: pullImages, names: [1, many], options: { json: flag, username: value, "password-stdin": flag } },
  inspect: { run: inspectImages, names: [1, many], options: {} },
  remove: { run: removeImages, names: [1, many], options: {} },
  verify: { run: verifyImages, names: [0, many], options: { json: flag, repair: flag } },
  import: {
    run: importImages,
    names: [0, 1],
    options: { json: flag, name: value, platform: value, "all-platforms": flag },
  },
  export: {
    run: exportImages,
    names: [1, many],
    options: { output: { type: "string", short: "o" }, "all-platforms": flag },
  },
  prune: { run: pruneImages, names: [0, 0], options: { json: flag, "older-than": value } },
};

function parseCommand([name = "", ...args]: readonly string[]): Pick<Command, "run"> &
  Pick<Invocation, "names" | "flags"> {
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (command === undefined) throw new UsageError(name === "" ? "images needs a command" : `no command "${name}"`);
  const { names, flags } = parseFlags(args, command.options);
  const [least, most] = command.names;
  if (names.length < least) throw new UsageError(`${name} needs a name`);
  if (names.length > most) throw new UsageError(`"${names[most]}" is too much for ${name}`);
  return { run: command.run, names, flags };
}

/** What went wrong, as a line for the operator. */
function describeFailure(thrown: unknown, socket: string): string {
  const isUnreachable = thrown instanceof CriError && thrown.code === Code.Unavailable;
  if (isUnreachable && /No connection established|connect E/.test(thrown.message))
    return `nobody listens on "${socket}": is the daemon running?`;
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** Runs `berth images …`. @returns the exit code: 1 for a failure, 2 for a wrong command line. */
export async function runImages(argv: readonly string[], terminal: Terminal): Promise<number> {
  let socket = "";
  try {
    if (argv.some((argument) => argument === "--help" || argument === "-h")) {
      terminal.out.write(imagesUsage);
      return 0;
    }
    const { run, names, flags } = parseCommand(argv);
    ({ socket } = await loadConfig(flags));
    using client = connectClient(socket);
    await run({ client, names, flags, terminal });
    return 0;
  } catch (thrown) {
    if (thrown instanceof ConfigError) {
      terminal.err.write(thrown.issues.map((issue) => `berth: ${issue}\n`).join(""));
      return 1;
    }
    const isUsage = thrown instanceof UsageError;
    terminal.err.write(`berth: ${describeFailure(thrown, socket)}\n${isUsage ? `\n${imagesUsage}` : ""}`);
    return isUsage ? 2 : 1;
  }
}
