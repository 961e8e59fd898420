import { parseArgs, type ParseArgsConfig } from "node:util";

export const imagesUsage = `Usage: berth images <command> [flags]

Speaks to the running daemon. A NAME is an image's name in any spelling, its id, or the start of its id.

Commands:
  list [NAME]         the images, or one
  pull NAME...        fetch from registries, with progress
  inspect NAME...     all that is known, as JSON
  remove NAME...      with all their names; layers that a container uses go with it
  prune               remove images that no container uses and that are not pinned
  verify [NAME...]    hold layers against their digests (all layers, without a NAME)
  import [FILE]       a docker or OCI archive, plain, gzip or zstd; standard input without FILE or with -
  export NAME...      one archive of them all, for docker, podman, containerd and Berth, to standard output

Flags:
  --json               list, pull, prune, verify, import: JSON, an object a line where there are many
  --username USER      pull: ask the registry as this user
  --password-stdin     pull: with the password read from standard input
  --older-than TIME    prune: only images pulled so long ago, as 90m, 12h or 30d
  --repair             verify: pull again what is damaged and in no container's use
  --name NAME          import: the name of an archive's only image, or the repository of its tags
  --platform PLATFORM  import: of an index, this one: os/architecture[/variant]
  --all-platforms      import: of an index, all that are in the archive; export: of a name's index, all that are here
  -o, --output FILE    export: a file that does not exist yet
  --config FILE        configuration that says where the socket is
  --socket PATH        the daemon's socket
`;

/** The flags of all commands; each takes its own and those of {@link commonOptions}. */
export interface ImagesFlags {
  readonly config?: string;
  readonly socket?: string;
  readonly json?: boolean;
  readonly username?: string;
  readonly "password-stdin"?: boolean;
  readonly "older-than"?: string;
  readonly repair?: boolean;
  readonly name?: string;
  readonly platform?: string;
  readonly "all-platforms"?: boolean;
  readonly output?: string;
}

type Options = NonNullable<ParseArgsConfig["options"]>;

const commonOptions = { config: { type: "string" }, socket: { type: "string" } } as const satisfies Options;

/** Reads what follows a command's name. @throws {UsageError} */
export function parseFlags(args: readonly string[], options: Options): { names: string[]; flags: ImagesFlags } {
  try {
    const { values, positionals } = parseArgs({
      args: [...args],
      options: { ...commonOptions, ...options },
      allowPositionals: true,
    });
    return { names: positionals, flags: values };
  } catch (thrown) {
    throw new UsageError(thrown instanceof Error ? thrown.message : String(thrown), { cause: thrown });
  }
}

/** A command line that cannot be what was meant; told with the usage. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

const unitsMs: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** @throws {UsageError} for what is no time. */
export function parseAge(text: string): number {
  const [, digits, unit] = /^(\d{1,6})([smhd])$/.exec(text) ?? [];
  const unitMs = unitsMs[unit ?? ""];
  if (digits === undefined || unitMs === undefined)
    throw new UsageError(`"${text}" is no time such as 90m, 12h or 30d`);
  return Number(digits) * unitMs;
}
