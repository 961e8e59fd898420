import { type ChildProcess, spawn } from "node:child_process";
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import { cacheDirectory, repository } from "../harness/repository.ts";
import { runCommand } from "../harness/run-command.ts";

/** A moment just before or just after a system call by which a process changes the world. */
export interface Point {
  readonly when: "before" | "after";
  /** The call and what it is about, as `interrupt.c` says it. */
  readonly call: string;
}

/** Watches a process from outside, by ptrace; when closed, the process runs on unwatched. */
export interface Interrupter extends AsyncDisposable {
  /** Resolves when the process, or the watching, has ended. */
  readonly ended: Promise<void>;
}

/** Compiles the program that watches; returns where it is. */
export async function buildInterrupter(): Promise<string> {
  const program = path.join(cacheDirectory, "faults/interrupt");
  await mkdir(path.dirname(program), { recursive: true });
  const source = path.join(repository, "e2e/faults/interrupt.c");
  await runCommand(["gcc", "-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source]);
  return program;
}

/** Stops the process at each point and goes on as `decide` says; "kill" is SIGKILL, and before a call it is not made. */
export async function interrupt(
  program: string,
  pid: number,
  decide: (point: Point) => "continue" | "kill",
): Promise<Interrupter> {
  const child = spawn(program, [String(pid)], { stdio: ["pipe", "pipe", "inherit"] });
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  child.stdin.on("error", () => undefined); // it ended before it read the answer
  const ready = Promise.withResolvers<void>();
  void ended.then(() => ready.resolve());
  createInterface({ input: child.stdout }).on("line", (line) => {
    if (line === "ready") ready.resolve();
    else child.stdin.write(decide(parsePoint(line)) === "kill" ? "k" : "c");
  });
  await ready.promise;
  return {
    ended,
    async [Symbol.asyncDispose](): Promise<void> {
      await end(child, ended);
    },
  };
}

async function end(child: ChildProcess, ended: Promise<void>): Promise<void> {
  child.kill("SIGTERM");
  await ended;
}

function parsePoint(line: string): Point {
  const [when, ...call] = line.split(" ");
  return { when: when === "before" ? "before" : "after", call: call.join(" ") };
}
