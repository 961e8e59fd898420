/*
 * Calls every function of the addon with generated values, half right and all wrong. Run by boundary.root.test.ts in a
 * Node of its own, inside namespaces of its own and an empty folder: `boundary-fuzz.ts ADDON SEED CALLS`. Ends with 0
 * and a line of JSON if no call threw, crashed, or lost a job.
 */
import { createRequire } from "node:module";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Addon } from "./binding.ts";

type Kind =
  | "fd"
  | "stranger"
  | "directory"
  | "text"
  | "number"
  | "bytes"
  | "texts"
  | "fds"
  | "token"
  | "handler"
  | "inflater";

const shapes = {
  start: ["handler"],
  keepAlive: ["number"],
  watch: ["fd", "number", "number"],
  rearm: ["fd", "number", "number"],
  unwatch: ["fd"],
  reap: ["token", "fd"],
  pidfdOpen: ["number"],
  pidfdSignal: ["fd", "number"],
  signalGroup: ["number", "number"],
  raisePriority: ["number"],
  pipe: [],
  readKernelFile: ["text", "number"],
  close: ["stranger"],
  read: ["fd", "number"],
  write: ["fd", "bytes"],
  eventfd: [],
  setWindowSize: ["fd", "number", "number"],
  openat2: ["directory", "text", "number", "number", "number"],
  mkdirat: ["directory", "text", "number"],
  mknodat: ["directory", "text", "number", "number", "number"],
  symlinkat: ["text", "directory", "text"],
  linkat: ["directory", "text", "directory", "text", "number"],
  unlinkat: ["directory", "text", "number"],
  renameat: ["directory", "text", "directory", "text"],
  fchownat: ["directory", "text", "number", "number", "number"],
  fchmodat: ["directory", "text", "number"],
  fchmod: ["fd", "number"],
  utimensat: ["directory", "text", "number", "number", "number", "number", "number"],
  setxattr: ["text", "text", "bytes", "number"],
  getxattr: ["text", "text", "number"],
  listxattr: ["text", "number"],
  readlinkat: ["directory", "text"],
  fstatat: ["directory", "text", "number"],
  applyAttributes: ["fd", "number", "number", "number", "number", "number"],
  createFile: ["directory", "text", "bytes", "number", "number", "number", "number", "number"],
  tryLock: ["fd"],
  connectUnix: ["text", "number"],
  listenUnix: ["text", "number"],
  accept: ["fd"],
  socketPair: ["number"],
  send: ["fd", "bytes"],
  shutdownWrite: ["fd"],
  sendFds: ["fd", "fds", "bytes"],
  recvFds: ["fd", "number"],
  socketError: ["fd"],
  inotifyOpen: ["text", "number"],
  spawn: ["token", "texts", "number", "text", "fds", "number"],
  writeFile: ["token", "text", "text", "text", "bytes", "number", "number"],
  readFile: ["token", "text", "text", "number"],
  resolvePath: ["token", "text", "text"],
  readFiles: ["token", "texts", "number"],
  makeFolders: ["token", "texts", "bytes"],
  removeFiles: ["token", "texts"],
  makeDirectories: ["token", "text", "text", "number", "number", "number"],
  writeFifo: ["token", "text", "bytes"],
  removeTree: ["token", "text"],
  measureTree: ["token", "text"],
  spreadFolders: ["token", "text"],
  releaseMemory: ["token"],
  mountOverlay: ["token", "texts", "text", "text", "text", "text"],
  mount: ["token", "text", "text", "text", "text", "number"],
  mountBind: ["token", "text", "text", "text", "number", "number", "number"],
  pinNamespaces: ["token", "text", "text", "number", "texts"],
  unpinNamespace: ["token", "text"],
  connectInNamespace: ["token", "text", "text", "number"],
  readNetworkDevices: ["token", "texts", "number"],
  inflaterCreate: [],
  inflate: ["inflater", "bytes", "bytes"],
} as const satisfies Record<keyof Addon, readonly Kind[]>;

const opensFd: ReadonlySet<string> = new Set([
  "pidfdOpen",
  "openat2",
  "eventfd",
  "accept",
  "connectUnix",
  "listenUnix",
  "inotifyOpen",
]);

/** mulberry32: the same seed gives the same run. */
function createRandom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

function throwingArray(): unknown[] {
  return Object.defineProperty(["a", "b", "c"], 1, {
    get: () => {
      throw new Error("from a getter");
    },
  });
}

function shrinkingArray(): unknown[] {
  const array: unknown[] = ["a", "b", "c"];
  return Object.defineProperty(array, 0, {
    get: () => {
      array.length = 1;
      return "a";
    },
  });
}

function detachedBytes(): Uint8Array {
  const buffer = new ArrayBuffer(16);
  const bytes = new Uint8Array(buffer);
  structuredClone(buffer, { transfer: [buffer] });
  return bytes;
}

/** Values of no right type, made anew each time since calls may change them. */
const garbage: readonly (() => unknown)[] = [
  () => undefined,
  () => null,
  () => true,
  () => Number.NaN,
  () => Number.POSITIVE_INFINITY,
  () => -1,
  () => -2147483649,
  () => 0.5,
  () => 2 ** 53,
  () => -(2 ** 60),
  () => 7n,
  () => Symbol("s"),
  () => () => undefined,
  () => ({ toString: () => "text", valueOf: () => 3, length: 2 }),
  () => new Proxy([], {}),
  () => new Date(0),
  () => new Float64Array(3),
  () => new ArrayBuffer(8),
  () => new DataView(new ArrayBuffer(8)),
  () => detachedBytes(),
  () => throwingArray(),
  () => shrinkingArray(),
  () => Array.from({ length: 70_000 }, () => "x"),
  () => [["nested"]],
  () => [1, "mixed"],
  () => Object.assign([], { length: 5 }),
  () => "nul\0inside",
  () => "y".repeat(2 ** 21),
  () => new String("boxed"),
];

const texts = [
  "",
  "a",
  "b",
  "a/b",
  "/proc/self/stat",
  "/proc/thread-self/ns/net",
  "127.0.0.1",
  "\ud800",
  "ü",
  "c".repeat(5000),
];
/* No type of file among the modes: a FIFO would make a later open wait. */
const numbers = [0, 1, 2, 3, 5, 0o600, 0o7777, 64, 4096, 65535, 0o10000000, 0x4000_0000, 2 ** 31 - 1, 2 ** 32 - 1];
/* Far above any descriptor or process there is. */
const strangers = [1_000_000, 2 ** 30];

function createGenerator(addon: Addon, random: (below: number) => number): (kind: Kind) => unknown {
  const sockets = addon.socketPair(5);
  const directory = addon.openat2(-100, process.cwd(), 0o200000, 0, 0);
  const eventFd = addon.eventfd();
  if (typeof sockets === "number" || directory < 0 || eventFd < 0) throw new Error("no descriptors");
  addon.watch(eventFd, 1, 1);
  const pick = <T>(list: readonly T[]): T => list[random(list.length)] as T;
  const text = (): string => (random(3) === 0 ? `${process.cwd()}/${pick(texts)}` : pick(texts));
  const list = <T>(make: () => T): T[] => Array.from({ length: random(6) }, make);
  const inflaters = Array.from({ length: 4 }, () => addon.inflaterCreate());
  let nextToken = 1000;
  const right: Readonly<Record<Kind, () => unknown>> = {
    fd: () => pick([eventFd, directory, ...strangers]),
    stranger: () => pick(strangers),
    directory: () => pick([directory, -100, ...strangers]),
    text,
    number: () => pick([...numbers, ...strangers]),
    bytes: () => Buffer.alloc(random(3) * 1000, "z"),
    texts: () => list(text),
    fds: () => list(() => pick([-1, eventFd, ...strangers])),
    token: () => nextToken++,
    handler: () => () => undefined,
    inflater: () => pick(inflaters),
  };
  return (kind) => (random(5) === 0 ? pick(garbage)() : right[kind]());
}

function closeResult(addon: Addon, name: string, result: unknown): void {
  const fds: readonly unknown[] = opensFd.has(name) ? [result] : [];
  const pairs: readonly unknown[] = Array.isArray(result) && (name === "pipe" || name === "socketPair") ? result : [];
  for (const fd of [...fds, ...pairs]) if (typeof fd === "number" && fd >= 0) addon.close(fd);
}

/** One call of the table's next function; answers whether it got through, and the token of a job it started. */
function callOnce(addon: Addon, name: keyof Addon, args: readonly unknown[]): { isThrough: boolean; job?: number } {
  const result = (addon[name] as (...values: unknown[]) => unknown)(...args);
  if (typeof result !== "number" && typeof result !== "object") throw new Error(`${name} answered a ${typeof result}`);
  closeResult(addon, name, result);
  const [first] = shapes[name] as readonly Kind[];
  const isJob = first === "token" && result === 0;
  return { isThrough: typeof result !== "number" || result >= 0, ...(isJob ? { job: Number(args[0]) } : {}) };
}

function loadShaped(path: string): { readonly addon: Addon; readonly names: readonly (keyof Addon)[] } {
  const addon = createRequire(import.meta.url)(path) as Addon;
  const unknown = Object.keys(addon).filter((name) => !(name in shapes));
  if (unknown.length > 0) throw new Error(`no shape for ${unknown.join()}`);
  return { addon, names: Object.keys(shapes).filter((name): name is keyof Addon => name in addon) };
}

async function main(path: string, seed: number, calls: number): Promise<void> {
  const { addon, names } = loadShaped(path);
  const awaited = new Set<number>();
  addon.start((token) => awaited.delete(token));
  const random = createRandom(seed);
  const generate = createGenerator(addon, random);
  let accepted = 0;
  for (let count = 0; count < calls; count++) {
    const name = names[count % names.length] ?? "pipe";
    const shape: readonly Kind[] = shapes[name];
    const { isThrough, job } = callOnce(addon, name, shape.map(generate).slice(0, random(20) === 0 ? random(5) : 12));
    if (isThrough) accepted += 1;
    if (job !== undefined) awaited.add(job);
    if (count % 40 === 0) await nextTurn();
  }
  addon.keepAlive(1);
  const deadline = performance.now() + 20_000;
  while (awaited.size > 0 && performance.now() < deadline) await nextTurn();
  process.stdout.write(`${JSON.stringify({ accepted, lostJobs: awaited.size })}\n`);
  addon.keepAlive(0);
}

const [path = "", seed = "1", calls = "1000"] = process.argv.slice(2);
await main(path, Number(seed), Number(calls));
