import { mkdir, readFile } from "node:fs/promises";
import { afterAll, beforeAll, expect, inject, onTestFinished } from "vitest";
import { Code, type cri, CriError, type Init, type MethodName, type Methods } from "../../cri-api/index.ts";
import { containerConfig, podConfig } from "./configs.ts";
import type { CriClient } from "./cri-client.ts";
import { type Daemon, type DaemonOptions, startDaemon } from "./daemon.ts";
import { findTraces, type Traces, waitForNoLeaks } from "./leaks.ts";
import { isOfNode, removeNodeNetwork } from "./network.ts";
import { testImages } from "./test-images.ts";
import { waitUntil } from "./wait-until.ts";
import { createWorkspace, type Workspace } from "./workspace.ts";

interface FixtureOptions {
  /** Images that are pulled before the tests; the plain one unless told otherwise. */
  readonly pull?: readonly (keyof typeof testImages)[];
  /** More registries that may be reached over plain HTTP. */
  readonly registries?: () => readonly string[];
  /** Runtimes by handler; the system's crun and runc unless told otherwise. */
  readonly runtimes?: Readonly<Record<string, { readonly path: string }>>;
  /** How else the daemon of this workspace is started; what it takes for that goes after the daemon. */
  readonly prepare?: (
    workspace: Workspace,
    resources: AsyncDisposableStack,
  ) => Promise<Omit<DaemonOptions, "registries">>;
}

interface Pod {
  readonly id: string;
  readonly config: Init<cri.PodSandboxConfig>;
}

interface PodOptions {
  readonly runtimeHandler?: string;
  readonly config?: Init<cri.PodSandboxConfig>;
}

/** One daemon for a file of tests. Pods made through it go after their test; the whole must leave nothing. */
export class Fixture {
  #daemon: Daemon | undefined;
  #empty: Traces | undefined;
  #resources = new AsyncDisposableStack();
  #nextName = 0;

  get daemon(): Daemon {
    if (this.#daemon === undefined) throw new Error("the daemon is not running yet");
    return this.#daemon;
  }
  get client(): CriClient {
    return this.daemon.client;
  }
  get workspace(): Workspace {
    return this.daemon.workspace;
  }
  call: CriClient["call"] = (name, request, options) => this.client.call(name, request, options);

  /** The full reference of a test image. */
  image(name: keyof typeof testImages): string {
    return `${inject("registry")}/${testImages[name]}`;
  }

  async open(options: FixtureOptions): Promise<void> {
    await using resources = new AsyncDisposableStack();
    const workspace = resources.use(await createWorkspace());
    resources.defer(() => removeNodeNetwork(workspace));
    const registries = [inject("registry"), ...(options.registries?.() ?? [])];
    const runtimes = options.runtimes === undefined ? {} : { runtimes: options.runtimes };
    const prepared = await options.prepare?.(workspace, resources);
    this.#daemon = resources.use(await startDaemon(workspace, { registries, ...runtimes, ...prepared }));
    this.#empty = await this.findTraces();
    for (const name of options.pull ?? ["busybox"]) {
      await this.call("PullImage", { image: { image: this.image(name) } });
    }
    this.#resources = resources.move();
  }

  /** Removes all pods and images, and fails when anything is left of them. */
  async close(): Promise<void> {
    await using _resources = this.#resources;
    if (this.#empty === undefined) return; // it never came up
    for (const { id } of (await this.call("ListPodSandbox")).items) await this.removePod(id);
    for (const { id } of (await this.call("ListImages")).images)
      await this.call("RemoveImage", { image: { image: id } });
    await this.expectNothingNew(this.#empty);
  }

  findTraces(): Promise<Traces> {
    return findTraces({ workspace: this.workspace, ids: this.client.seenIds });
  }

  async runPod(options: PodOptions = {}): Promise<Pod> {
    const name = `pod${this.#nextName++}`;
    const config = podConfig(this.workspace, name, options.config);
    await mkdir(config.logDirectory ?? "", { recursive: true });
    const request = { config, runtimeHandler: options.runtimeHandler ?? "" };
    const { podSandboxId: id } = await this.call("RunPodSandbox", request);
    onTestFinished(() => this.removePod(id));
    return { id, config };
  }

  async createContainer(pod: Pod, overrides: Init<cri.ContainerConfig> = {}): Promise<string> {
    const name = overrides.metadata?.name ?? `container${this.#nextName++}`;
    const config = containerConfig(name, this.image("busybox"), overrides);
    const request = { podSandboxId: pod.id, config, sandboxConfig: pod.config };
    return (await this.call("CreateContainer", request)).containerId;
  }

  async startContainer(pod: Pod, overrides: Init<cri.ContainerConfig> = {}): Promise<string> {
    const containerId = await this.createContainer(pod, overrides);
    await this.call("StartContainer", { containerId });
    if ([overrides.image, overrides.command, overrides.args].every((own) => own === undefined)) {
      await waitUntil("the sleeper of the plain image", () => this.#isAtRest(containerId));
    }
    return containerId;
  }

  /** The plain image's command has its child, and its handler of SIGTERM, only a moment after the start. */
  async #isAtRest(containerId: string): Promise<true | undefined> {
    const { status, info } = await this.call("ContainerStatus", { containerId, verbose: true });
    if (status?.state !== "CONTAINER_RUNNING") return true;
    const { pid } = JSON.parse(info["info"] ?? "{}") as { pid: number };
    const child = (await readFile(`/proc/${pid}/task/${pid}/children`, "utf8")).trim();
    return (await readFile(`/proc/${child}/cmdline`, "utf8")).startsWith("sleep") || undefined;
  }

  /** Runs a shell command in a container and returns what it printed; a failure of the command is an error. */
  async shell(containerId: string, script: string): Promise<string> {
    const answer = await this.call("ExecSync", { containerId, cmd: ["sh", "-c", script] });
    if (answer.exitCode !== 0) throw new Error(`${script} ended with ${answer.exitCode}: ${answer.stderr.toString()}`);
    return answer.stdout.toString().replace(/\n$/u, "");
  }

  /** Runs a container to its end in a pod and returns its exit code and log. */
  async runToEnd(pod: Pod, command: readonly string[], overrides: Init<cri.ContainerConfig> = {}): Promise<Ended> {
    const containerId = await this.startContainer(pod, { command, ...overrides });
    const status = await this.waitForExit(containerId);
    return { containerId, status, log: await this.readLog(containerId) };
  }

  async containerStatus(containerId: string): Promise<cri.ContainerStatus> {
    const { status } = await this.call("ContainerStatus", { containerId });
    if (status === null) throw new Error(`no status of container ${containerId}`);
    return status;
  }

  waitForExit(containerId: string): Promise<cri.ContainerStatus> {
    return waitUntil(`the end of container ${containerId}`, async () => {
      const status = await this.containerStatus(containerId);
      return status.state === "CONTAINER_EXITED" ? status : undefined;
    });
  }

  /** The lines of a container's log as `stream text`; partial lines are joined. */
  async readLog(containerId: string): Promise<readonly string[]> {
    return parseLog(await readFile((await this.containerStatus(containerId)).logPath, "utf8"));
  }

  waitForLog(containerId: string, expected: string): Promise<readonly string[]> {
    return waitUntil(`"${expected}" in the log`, async () => {
      const lines = await this.readLog(containerId);
      return lines.some((line) => line.includes(expected)) ? lines : undefined;
    });
  }

  async removePod(podSandboxId: string): Promise<void> {
    await this.call("StopPodSandbox", { podSandboxId });
    await this.call("RemovePodSandbox", { podSandboxId });
  }

  /** Expects a call to fail with a code and a text, to tell nothing internal, and to leave nothing. */
  async expectFailure<Name extends MethodName>(
    name: Name,
    request: Init<Methods[Name]["request"]>,
    code: Code,
    text: RegExp | string,
  ): Promise<void> {
    const before = await this.findTraces();
    const thrown: unknown = await this.call(name, request).then(
      (response) => response,
      (error: unknown) => error,
    );
    if (!(thrown instanceof CriError)) throw new Error(`${name} should have failed, but answered`, { cause: thrown });
    expect(nameOf(thrown.code), thrown.message).toBe(nameOf(code));
    expect(thrown.message).toMatch(text);
    expect(thrown.message).not.toMatch(/\n\s+at /u);
    for (const secret of [this.workspace.root, this.workspace.state]) expect(thrown.message).not.toContain(secret);
    await this.expectNothingNew(before);
  }

  /** Expects no trace on the machine that `before` did not have; waits a little for processes to end. */
  async expectNothingNew(before: Traces): Promise<void> {
    const { workspace } = this;
    const scope = { workspace, ids: this.client.seenIds };
    const isExpected = (line: string): boolean => isOfNode(workspace, line);
    expect(await waitForNoLeaks(before, scope, { isExpected })).toEqual([]);
  }
}

interface Ended {
  readonly containerId: string;
  readonly status: cri.ContainerStatus;
  readonly log: readonly string[];
}

/** Starts a daemon before the tests of the calling file and, after them, ends it and looks for leaks. */
export function useDaemon(options: FixtureOptions = {}): Fixture {
  const fixture = new Fixture();
  beforeAll(() => fixture.open(options));
  afterAll(() => fixture.close());
  return fixture;
}

/** The gRPC code's name, for assertions that read well when they fail. */
export function nameOf(code: Code): string {
  return Object.entries(Code).find(([, number]) => number === code)?.[0] ?? String(code);
}

/** Parses the CRI log format: time, stream, F or P, text. A part that no full line follows is a line of its own. */
function parseLog(text: string): string[] {
  const lines: string[] = [];
  const partial = new Map<string, string>();
  for (const line of text.split("\n").filter((line) => line !== "")) {
    const match = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(?:Z|[+-]\d\d:\d\d) (stdout|stderr) ([FP]) (.*)$/su.exec(line);
    if (match === null) throw new Error(`not a line of a container log: ${line}`);
    const [, stream = "", tag, content = ""] = match;
    const joined = (partial.get(stream) ?? "") + content;
    partial.delete(stream);
    if (tag === "P") partial.set(stream, joined);
    else lines.push(`${stream} ${joined}`);
  }
  return [...lines, ...[...partial].map(([stream, rest]) => `${stream} ${rest}`)];
}
