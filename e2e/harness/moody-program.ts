import { chmod, readFile, readdir, writeFile } from "node:fs/promises";
import path from "node:path";

const moods = {
  well: "",
  hang: "sleep 3600",
  deaf: "trap '' TERM INT HUP; while :; do sleep 1; done",
  die: "kill -KILL $$",
  garbage: "head -c 20000 /dev/urandom; head -c 20000 /dev/urandom >&2; exit 1",
  flood: "cat /dev/zero",
} as const;

/** How a part of the node behaves: as it should, or in one of the ways in which programs go wrong. */
export type Mood = keyof typeof moods;

/** A program in front of a real one, that can be told at any time to misbehave. */
export interface MoodyProgram {
  readonly path: string;
  become(mood: Mood): Promise<void>;
  /** Ends those that still misbehave, as an operator would. */
  killAll(): Promise<void>;
}

/** Writes the program `directory/name`; when it is well it becomes `real`, with the same arguments. */
export async function writeMoodyProgram(directory: string, name: string, real: string): Promise<MoodyProgram> {
  const program = path.join(directory, name);
  const moodFile = path.join(directory, `${name}.mood`);
  const cases = Object.entries(moods).map(([mood, script]) =>
    mood === "well" ? `well) exec ${real} "$@" ;;` : `${mood}) export MOODY=${program}; ${script} ;;`,
  );
  await writeFile(program, `#!/bin/sh\ncase "$(cat ${moodFile})" in\n${cases.join("\n")}\nesac\n`);
  await chmod(program, 0o755);
  const become = (mood: Mood): Promise<void> => writeFile(moodFile, mood);
  await become("well");
  return { path: program, become, killAll: () => killMisbehaving(program) };
}

/** A misbehaving one has the program in its command line, and what it started in its environment. */
async function killMisbehaving(program: string): Promise<void> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/u.test(name));
  const read = (pid: string, name: string): Promise<string> => readFile(`/proc/${pid}/${name}`, "utf8").catch(() => "");
  for (const pid of pids) {
    const [commandLine, environment] = [await read(pid, "cmdline"), await read(pid, "environ")];
    const isOurs = commandLine.includes(`\0${program}\0`) || environment.includes(`MOODY=${program}\0`);
    if (isOurs) process.kill(Number(pid), "SIGKILL");
  }
}
