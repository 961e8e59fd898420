import { describe, expect, test } from "vitest";
import { Code } from "../../cri-api/index.ts";
import { runtimeFailure } from "./failure.ts";

const tooLow = "its memory limit of 16384 bytes is too low for it to start";
const context = {
  what: 'cannot create container "c1"',
  executable: "nope",
  imageName: "busybox:1",
  memoryLimitBytes: 16_384,
  hidden: ["/run/berth/containers/c1", "/run/berth/runtimes/crun/root", "/sys/fs/cgroup"],
  rootfs: "/run/berth/containers/c1/rootfs",
};

function runc(message: string): string {
  return `time="2026-01-02T03:04:05Z" level=warning msg="ignored"\ntime="2026-01-02T03:04:05Z" level=error msg=${JSON.stringify(message)}\n`;
}

describe("what a runtime says becomes a short reason and a code", () => {
  const invalid = Code.InvalidArgument;
  const wrong = Code.FailedPrecondition;
  const notFound = 'executable "nope" not found in image "busybox:1"';
  const denied = 'executable "nope" in image "busybox:1" cannot be executed: permission denied';
  const cases: readonly (readonly [said: string, reason: string, code: Code])[] = [
    ["executable file `nope` not found in $PATH: No such file or directory\n", notFound, invalid],
    [
      runc('runc create failed: unable to start container process: exec: "nope": executable file not found in $PATH'),
      notFound,
      invalid,
    ],
    [
      runc(
        'runc create failed: unable to start container process: exec: "/bin/nope": stat /bin/nope: no such file or directory',
      ),
      notFound,
      invalid,
    ],
    [
      'exec failed: unable to start container process: exec: "nope": executable file not found in $PATH',
      notFound,
      invalid,
    ],
    ["open executable: Permission denied\n", denied, invalid],
    ["open executable: Operation not permitted\n", denied, invalid],
    [runc('runc create failed: unable to start container process: exec: "/etc": permission denied'), denied, invalid],
    ["chdir `/nodir`: No such file or directory", "chdir `/nodir`: No such file or directory", invalid],
    [
      'exec failed: unable to start container process: chdir to cwd ("/nodir") set in config.json failed: no such file or directory',
      'chdir to cwd ("/nodir") set in config.json failed: no such file or directory',
      invalid,
    ],
    [
      "error opening file `/run/berth/runtimes/crun/root/c1/status`: No such file or directory",
      "it is not running",
      wrong,
    ],
    [
      "write file `/proc/thread-self/attr/apparmor/exec`: No such file or directory",
      "its AppArmor profile is not loaded",
      wrong,
    ],
    [
      runc(
        "runc create failed: unable to start container process: unable to apply apparmor profile: apparmor failed to apply profile: write /proc/thread-self/attr/apparmor/exec: no such file or directory",
      ),
      "its AppArmor profile is not loaded",
      wrong,
    ],
    ["OOM: the memory limit could be too low: read from sync socket: Connection reset by peer", tooLow, invalid],
    [
      runc(
        "runc create failed: unable to start container process: error during container init: error setting cgroup config for procHooks process: unable to set memory limit to 16384 (current usage: 1945600, peak usage: 2007040)",
      ),
      tooLow,
      invalid,
    ],
    [
      "writing file `cpuset.cpus`: Numerical result out of range",
      "writing file `cpuset.cpus`: Numerical result out of range",
      invalid,
    ],
    ["mount `/srv` to `etc/passwd`: Not a directory", "mount `/srv` to `etc/passwd`: Not a directory", invalid],
    ["container does not exist", "container does not exist", wrong],
    ["exec failed: cannot exec in a stopped container", "cannot exec in a stopped container", wrong],
    ["fail startup\nsetns(pid=21847, CLONE_NEWUSER): No such process", "it is not running", wrong],
    [
      "cannot open `/run/berth/runtimes/crun/root/c1/exec.fifo`: No such file or directory",
      "it is not in created state",
      wrong,
    ],
    ["cannot start an already running container", "it is not in created state", wrong],
    ["container `c1` already exists", "container `c1` already exists", wrong],
    ["capset: Operation not permitted", "capset: Operation not permitted", Code.Internal],
    [
      "mkdir `/run/berth/containers/c1/rootfs/data`: Read-only file system",
      "mkdir `/data`: Read-only file system",
      Code.Internal,
    ],
    [
      "open `/run/berth/containers/c1/config.json`: Permission denied",
      "open `config.json`: Permission denied",
      Code.Internal,
    ],
    [
      "write /sys/fs/cgroup/cpu/pod/c1/cpu.shares: invalid argument",
      "write cpu.shares: invalid argument",
      Code.Internal,
    ],
    ["", "the runtime gave no reason", Code.Internal],
    ["\u0000\u001b[31m\u0007", "[31m", Code.Internal],
  ];
  for (const [said, reason, code] of cases) {
    test(JSON.stringify(said.slice(-70)), () => {
      expect(runtimeFailure(said, context)).toMatchObject({ message: `${context.what}: ${reason}`, code });
    });
  }

  test("no reason is long, holds control characters or the directories that are ours", () => {
    const hostile = [
      "\n",
      "x".repeat(100_000),
      `${context.hidden[0]}/secret`,
      'time="" level=error msg="\\u0000"',
      "\u2028\u0085",
      "`${'",
    ];
    for (const first of hostile) {
      for (const second of hostile) {
        const { message } = runtimeFailure(first + second, {
          ...context,
          executable: "\u001b]0;title\u0007".repeat(100),
        });
        expect(message.length).toBeLessThan(700);
        expect(message).not.toMatch(/\p{Cc}/u);
        expect(message).not.toContain("/run/berth");
      }
    }
  });
});
