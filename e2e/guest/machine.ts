import { spawn } from "node:child_process";
import { mkdir, readFile, rm } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import { cacheDirectory } from "../harness/repository.ts";
import { runCommand } from "../harness/run-command.ts";

const guestDirectory = path.join(cacheDirectory, "guest");
/** Where the guest's /results is unpacked to. */
export const resultsDirectory = path.join(guestDirectory, "results");
const memoryMiB = 4096;
const timedOutCode = 124;

/** Which security module the guest's kernel runs, and whether its policy is enforced or only told of. */
export const securityModules = {
  apparmor: { variant: "apparmor", kernel: "apparmor=1 security=apparmor" },
  "selinux-permissive": { variant: "selinux", kernel: "selinux=1 security=selinux enforcing=0" },
  "selinux-enforcing": { variant: "selinux", kernel: "selinux=1 security=selinux enforcing=1" },
} as const;
export type SecurityModule = keyof typeof securityModules;

/** Builds the guest, once per version of the script that does it; where its disk, kernel and initrd are. */
export async function buildGuest(security: SecurityModule): Promise<string> {
  const { variant } = securityModules[security];
  return runCommand(["sh", path.join(import.meta.dirname, "build.sh"), variant], { timeoutMs: 1_800_000 });
}

/** A line of the guest's at which its power is cut, where a run allows for that. */
export const cutMarker = "guest: cut the power";

export interface GuestRun {
  readonly security: SecurityModule;
  readonly timeoutMs: number;
  /** A disk that outlives the run; without one every run is a first boot. */
  readonly disk?: string;
  /** The guest is to end by a power cut, at `cutMarker`. */
  readonly endsByPowerCut?: boolean;
  /** Hears every line that the command says. */
  readonly onLine?: (line: string) => void;
}

/** Copies the guest's disk to where runs may change it. */
export async function copyDisk(base: string): Promise<string> {
  const disk = path.join(guestDirectory, "kept.img");
  await runCommand(["cp", "--sparse=always", path.join(base, "disk.img"), disk]);
  return disk;
}

/**
 * Boots the guest with the payload as its second disk, prints what the command says and returns its exit code; 124 when
 * the time is over, 0 when its power was cut as it was meant to be.
 */
export async function runInGuest(base: string, payload: string, run: GuestRun): Promise<number> {
  await rm(resultsDirectory, { recursive: true, force: true });
  await mkdir(resultsDirectory, { recursive: true });
  const results = path.join(guestDirectory, "results.img");
  await rm(results, { force: true });
  await runCommand(["truncate", "-s", "512M", results]);
  await runCommand(["mkfs.ext4", "-q", "-F", results]);
  const end = await emulate(qemuArguments({ base, payload, results }, run), run);
  await runCommand(["debugfs", "-R", `rdump / ${resultsDirectory}`, results]);
  if (end === "power cut") return 0;
  if (end === "time is over") {
    console.error(`guest: the ${end}`);
    return timedOutCode;
  }
  const code = await readFile(path.join(resultsDirectory, "exit-code"), "utf8").catch(() => undefined);
  if (code !== undefined && run.endsByPowerCut !== true) return Number(code);
  console.error(`guest: it ended before it was to; see ${path.join(resultsDirectory, "console.log")}`);
  return 1;
}

function qemuArguments(
  { base, payload, results }: { readonly base: string; readonly payload: string; readonly results: string },
  { security, disk: kept }: GuestRun,
): readonly string[] {
  const disk = (file: string, options: string): string => `file=${file},if=virtio,format=raw,cache=unsafe,${options}`;
  const flags: readonly (readonly string[])[] = [
    ["-accel", "tcg,thread=multi,tb-size=1024"],
    ["-cpu", "Westmere", "-smp", "2", "-m", String(memoryMiB)],
    ["-nodefaults", "-display", "none", "-no-reboot", "-nic", "none"],
    ["-kernel", path.join(base, "vmlinuz"), "-initrd", path.join(base, "initrd.gz")],
    ["-drive", kept === undefined ? disk(path.join(base, "disk.img"), "snapshot=on") : disk(kept, "snapshot=off")],
    ["-drive", disk(payload, "readonly=on")],
    ["-drive", disk(results, "readonly=off")],
    ["-serial", `file:${path.join(resultsDirectory, "console.log")}`, "-serial", "stdio"],
    ["-append", kernelCommandLine(security)],
  ];
  return [...emulator(path.join(base, "emulator")), ...flags.flat()];
}

/** The guest's own release of qemu, run by its own loader. */
function emulator(root: string): readonly string[] {
  const libraries = path.join(root, "usr/lib/x86_64-linux-gnu");
  const firmware = ["qemu", "seabios"].flatMap((name) => ["-L", path.join(root, "usr/share", name)]);
  const program = path.join(root, "usr/bin/qemu-system-x86_64");
  return [path.join(libraries, "ld-linux-x86-64.so.2"), "--library-path", libraries, program, ...firmware];
}

/** systemd's own patience is meant for machines ten times as fast. */
function kernelCommandLine(security: SecurityModule): string {
  const patience = "systemd.default_timeout_start_sec=900";
  return `console=ttyS0 root=/dev/vda rw panic=1 ${securityModules[security].kernel} ${patience} quiet`;
}

/** Below everybody else's priority: it takes all of two processors. */
async function emulate(argv: readonly string[], run: GuestRun): Promise<"shutdown" | "power cut" | "time is over"> {
  const child = spawn("nice", ["-n", "10", ...argv], { stdio: ["ignore", "pipe", "inherit"] });
  let end: Awaited<ReturnType<typeof emulate>> = "shutdown";
  const endBy = (reason: typeof end): void => {
    end = reason;
    child.kill("SIGKILL");
  };
  createInterface({ input: child.stdout }).on("line", (line) => {
    console.log(line);
    run.onLine?.(line);
    if (run.endsByPowerCut === true && line === cutMarker) endBy("power cut");
  });
  const timer = setTimeout(endBy, run.timeoutMs, "time is over");
  const giveUp = (): never => {
    child.kill("SIGKILL");
    process.exit(1);
  };
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, giveUp);
  await new Promise((resolve, reject) => child.once("error", reject).once("close", resolve));
  clearTimeout(timer);
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.off(signal, giveUp);
  return end;
}
