import { expect, test } from "vitest";
import { conmonArguments } from "./conmon.ts";
import { parseHandshake } from "./conmon-launch.ts";

const config = {
  path: "/usr/bin/conmon",
  runtimePath: "/usr/bin/crun",
  runtimeArguments: ["--root=/run/r"],
  usesSystemdCgroups: false,
  exitDirectory: "/run/e",
  env: {},
};
const launch = {
  id: "c1",
  bundle: "/run/b",
  logPath: "/var/log/c1",
  tty: false,
  stdin: false,
  stdinOnce: false,
  prepare: async () => undefined,
};

function flags(changes: {
  readonly launch?: Partial<typeof launch>;
  readonly config?: Partial<typeof config>;
}): readonly string[] {
  return conmonArguments({ ...config, ...changes.config }, { ...launch, ...changes.launch }).slice(1);
}

test("a plain container is told where everything is", () => {
  expect(flags({})).toEqual([
    "--bundle=/run/b",
    "--cid=c1",
    "--cuuid=c1",
    "--name=c1",
    "--runtime=/usr/bin/crun",
    "--runtime-arg=--root=/run/r",
    "--conmon-pidfile=/run/b/conmon.pid",
    "--container-pidfile=/run/b/init.pid",
    "--exit-dir=/run/e",
    "--log-path=k8s-file:/var/log/c1",
    "--no-sync-log",
    "--full-attach",
  ]);
});

test("a log path that is empty writes none", () => {
  expect(flags({ launch: { logPath: "" } })).toContain("--log-path=none");
});

test("systemd cgroups, terminal and input are asked for only where wanted", () => {
  expect(flags({ config: { usesSystemdCgroups: true } })).toContain("--systemd-cgroup");
  expect(flags({ launch: { tty: true } })).toContain("--terminal");
  expect(flags({ launch: { stdin: true } })).toEqual(expect.arrayContaining(["--stdin", "--leave-stdin-open"]));
  expect(flags({ launch: { stdin: true, stdinOnce: true } })).not.toContain("--leave-stdin-open");
});

test("the handshake is read in both of its spellings", () => {
  expect(parseHandshake('{"pid": 4711}')).toEqual({ pid: 4711, message: "" });
  expect(parseHandshake('{"pid": -1, "message": "a \\u0027reason\\u0027\\n"}')).toEqual({
    pid: -1,
    message: "a 'reason'\n",
  });
});

test("what is no handshake never names a process", () => {
  const hostile = [
    "",
    "{}",
    "null",
    "[]",
    "42",
    '{"pid": "1"}',
    '{"pid": 1.5}',
    '{"pid": 1e400}',
    '{"pid": {}}',
    '{"pid": 1',
    "\u0000",
  ];
  for (const line of hostile) expect(parseHandshake(line).pid).toBe(-1);
});
