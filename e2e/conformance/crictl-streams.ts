import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { writeFile } from "node:fs/promises";
import path from "node:path";
import { runCommand, tryCommand } from "../harness/run-command.ts";
import { waitUntil } from "../harness/wait-until.ts";

/** crictl with its endpoint, and a pod with a running container. */
export interface CrictlScene {
  /** The command line of a subcommand. */
  readonly argv: (...args: readonly string[]) => readonly string[];
  readonly check: (command: string, work: () => Promise<void>) => Promise<boolean>;
  readonly pod: string;
  readonly podFile: string;
  readonly container: string;
  readonly image: string;
  readonly directory: string;
}

const timeoutMs = 20_000;
const page = "served through crictl\n";

/** What crictl streams, over both of its transports. */
export async function exerciseStreams(scene: CrictlScene): Promise<void> {
  const { argv, container } = scene;
  const serve = `mkdir -p /tmp/www; printf '${page.trim()}\\n' > /tmp/www/index.html; httpd -p 8080 -h /tmp/www`;
  await runCommand(argv("exec", "-s", container, "sh", "-c", serve));
  for (const transport of ["spdy", "websocket"] as const) {
    await checkExec(scene, transport);
    await checkAttach(scene, transport);
    await checkPortForward(scene, transport);
  }
}

async function checkExec({ argv, check, container }: CrictlScene, transport: string): Promise<void> {
  const shell = (...args: readonly string[]): readonly string[] => argv("exec", "-r", transport, ...args);
  await check(`exec over ${transport}`, async () => {
    const script = "echo said; echo complained >&2; exit 3";
    const answer = await tryCommand(shell(container, "sh", "-c", script), { timeoutMs });
    assert.match(answer.stdout, /^said$/mu);
    assert.match(answer.stderr, /^complained$/mu);
    assert.match(answer.stderr, /exit code:? (?:exit status )?3|exit status 3/u);
    assert.notEqual(answer.exitCode, 0);
  });
  await check(`exec -i over ${transport}`, async () => {
    const answer = await tryCommand(shell("-i", container, "cat"), { input: "typed\n", timeoutMs });
    assert.deepEqual([answer.exitCode, answer.stdout], [0, "typed\n"], answer.stderr);
  });
  await check(`exec -it over ${transport}`, async () => {
    const command = shell("-it", container, "sh", "-c", "'echo terminal $(readlink /proc/self/fd/0)'").join(" ");
    const answer = await tryCommand(["script", "-qec", command, "/dev/null"], { timeoutMs });
    assert.match(answer.stdout, /terminal \/dev\/pts\/\d+/u, answer.stderr);
    assert.equal(answer.exitCode, 0);
  });
}

async function checkAttach(scene: CrictlScene, transport: string): Promise<void> {
  const { argv, check, directory } = scene;
  await check(`attach -i over ${transport}`, async () => {
    const config = {
      metadata: { name: `attached-${transport}` },
      image: { image: scene.image },
      command: ["sh", "-c", "read word; echo got $word; exit 6"],
      stdin: true,
      stdin_once: true,
      log_path: `attached-${transport}.log`,
    };
    const file = path.join(directory, `attached-${transport}.json`);
    await writeFile(file, JSON.stringify(config));
    const id = await runCommand(argv("create", scene.pod, file, scene.podFile));
    await runCommand(argv("start", id));
    const answer = await tryCommand(argv("attach", "-i", "-r", transport, id), { input: "it\n", timeoutMs });
    assert.equal(answer.stdout, "got it\n", answer.stderr);
    await runCommand(argv("rm", "-f", id));
  });
}

async function checkPortForward({ argv, check, pod }: CrictlScene, transport: string): Promise<void> {
  await check(`port-forward over ${transport}`, async () => {
    const [file = "", ...args] = argv("port-forward", "-r", transport, pod, "18090:8080");
    const child = spawn(file, args, { stdio: "ignore", timeout: timeoutMs, killSignal: "SIGKILL" });
    const ended = new Promise((resolve) => child.once("close", resolve));
    try {
      const answer = await waitUntil("a page through the forwarded port", async () => {
        const response = await fetch("http://127.0.0.1:18090/", { headers: { connection: "close" } });
        return await response.text();
      });
      assert.equal(answer, page);
    } finally {
      child.kill("SIGKILL");
      await ended;
    }
  });
}
