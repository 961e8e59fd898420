import { text } from "node:stream/consumers";
import { expect, test } from "vitest";
import { spawn } from "./process.ts";

test("pipes belong to whom the command says, who can open them anew", async () => {
  const script = "stat -L -c '%u %g' /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2";
  const child = await spawn({
    argv: ["/bin/sh", "-c", script],
    env: { PATH: "/usr/bin:/bin" },
    stdio: ["pipe-read", "pipe-write", "pipe-write"],
    pipeOwner: { uid: 300_007, gid: 4_000_000_000 },
  });
  const [stdin, stdout, stderr] = child.stdio;
  if (!stdin || !stdout || !stderr) throw new Error("a pipe is missing");
  const said = await Promise.all([text(stdout), text(stderr), child.exited]);
  stdin.destroy();
  expect(said).toEqual(["300007 4000000000\n".repeat(3), "", { kind: "exited", code: 0 }]);
});
