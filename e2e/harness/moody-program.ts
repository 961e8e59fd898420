import { chmod, readFile, readdir, writeFile } from "node:fs/promises";
import path from "node:path";

const moods = {
  well: "",
  hang: "sleep 3600",
  deaf: "trap '' TERM INT HUP; while :; do sleep 1; done",
  die: "kill -KILL $$",
  garbage: "head -c 20000 /dev/urandom; head -c 20000 /dev/urandom >&2; exit 1",
  flood: "cat /dev/zero",
  late: 'sleep 3; "$REAL" "$@"',
  lingering: '"$REAL" "$@"; sleep 3600',
} as const;

/** How a part of the node behaves: as it should, or in one of the ways in which programs go wrong. */
export type Mood = keyof typeof moods;

/** A program in front of a real one, that can be told at any time to misbehave. */
export interface MoodyProgram {
  readonly path: string;
  become(mood: Mood): Promise<void>;
  /** From now on it fails when it is told one of these words (`DEL`, `delete`), and only then; none make it well. */
  refuse(...words: readonly string[]): Promise<void>;
  /** Those that misbehave just now, with what they have started. */
  pids(): Promise<readonly number[]>;
  /** Ends those that still misbehave, as an operator would. */
  killAll(): Promise<void>;
}

/** Writes the program `directory/name`; when it is well it becomes `real`, with the same arguments. */
export async function writeMoodyProgram(directory: string, name: string, real: string): Promise<MoodyProgram> {
  const program = path.join(directory, name);
  const moodFile = path.join(directory, `${name}.mood`);
  const cases = Object.entries(moods).map(([mood, script]) =>
    mood === "well" ? `well) exec ${real} "$@" ;;` : `${mood}) export MOODY=${program} REAL=${real}; ${script} ;;`,
  );
  await writeFile(program, `#!/bin/sh\n${refusal(moodFile)}case "$(cat ${moodFile})" in\n${cases.join("\n")}\nesac\n`);
  await chmod(program, 0o755);
  const become = (mood: Mood): Promise<void> => writeFile(moodFile, mood);
  const refuse = (...words: readonly string[]): Promise<void> => writeFile(`${moodFile}.refused`, words.join(" "));
  await Promise.all([become("well"), refuse()]);
  return {
    path: program,
    become,
    refuse,
    pids: () => findMisbehaving(program),
    killAll: async () => (await findMisbehaving(program)).forEach((pid) => process.kill(pid, "SIGKILL")),
  };
}

/** A plugin is told its command by the environment, a runtime by an argument. */
function refusal(moodFile: string): string {
  return `refused=" $(cat ${moodFile}.refused) "
for word in $CNI_COMMAND "$@"; do
  case "$refused" in *" $word "*)
    echo '{"cniVersion": "1.0.0", "code": 100, "msg": "told to fail"}'
    echo "told to fail" >&2
    exit 1
  esac
done
`;
}

/** A misbehaving one has the program in its command line, and what it started in its environment. */
async function findMisbehaving(program: string): Promise<readonly number[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/u.test(name));
  const read = (pid: string, name: string): Promise<string> => readFile(`/proc/${pid}/${name}`, "utf8").catch(() => "");
  const found = [];
  for (const pid of pids) {
    const [commandLine, environment] = [await read(pid, "cmdline"), await read(pid, "environ")];
    const isOurs = commandLine.includes(`\0${program}\0`) || environment.includes(`MOODY=${program}\0`);
    if (isOurs) found.push(Number(pid));
  }
  return found;
}
