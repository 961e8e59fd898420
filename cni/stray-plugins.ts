import {
  findProcesses,
  killUntilGone,
  type ProcessIdentity,
  processIdentity,
  readFileBounded,
} from "../native/index.ts";

/** The kernel's limit of what a program can be given. */
const maxEnvironmentBytes = 4 * 1024 * 1024;

/**
 * Kills the plugins that a daemon before has left at work on these containers, with what they have started: an ADD that
 * went on while it is undone would leave an address and links that nobody knows of.
 *
 * @returns how many there were.
 * @throws `signal.reason` where one of them does not die in time.
 */
export async function endStrayPlugins(containerIds: readonly string[], signal: AbortSignal): Promise<number> {
  const [ids, strays] = [new Set(containerIds), new Set<number>()];
  const findVictims = async (): Promise<readonly ProcessIdentity[]> => {
    signal.throwIfAborted();
    const found = await findStrays(ids);
    for (const { pid } of found) strays.add(pid);
    return found;
  };
  await killUntilGone(findVictims, Number.POSITIVE_INFINITY); // the signal ends it
  return strays.size;
}

/** Whoever has a plugin's environment: what it started has it too, and outlives it at times. */
function findStrays(containerIds: ReadonlySet<string>): Promise<readonly ProcessIdentity[]> {
  return findProcesses(async (pid) => {
    const identity = await processIdentity(pid); // before its environment: the number may change hands
    return containerIds.has(await containerIdOf(pid)) ? identity : undefined;
  });
}

async function containerIdOf(pid: number): Promise<string> {
  const environment = await readFileBounded(`/proc/${pid}/environ`, maxEnvironmentBytes).catch(() => undefined);
  const variables = environment?.toString("latin1").split("\0") ?? [];
  const isPlugin = variables.some((variable) => variable.startsWith("CNI_COMMAND="));
  const prefix = "CNI_CONTAINERID=";
  return (isPlugin && variables.find((variable) => variable.startsWith(prefix))?.slice(prefix.length)) || "";
}
