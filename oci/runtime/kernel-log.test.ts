import { expect, test } from "vitest";
import { parseOomKill } from "./kernel-log.ts";

const id = "2c1a6e3e3d869cda";
const init = { pid: 7324, startTime: "66700" };
const line = (memcg: string): string =>
  `6,901,667901234,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=container,mems_allowed=0,oom_memcg=/test.slice/berth-${id}.scope,task_memcg=${memcg},task=dd,pid=9,uid=0\n`;
const killed = (pid: number, microseconds = 667_901_300): string =>
  `3,902,${microseconds},-;Memory cgroup out of memory: Killed process ${pid} (dd) total-vm:23624kB, anon-rss:15092kB, UID:0 oom_score_adj:0\n`;

test.each([
  ["a scope with crun's own cgroup in it", line(`/test.slice/berth-${id}.scope/container`)],
  ["a scope", line(`/test.slice/berth-${id}.scope`)],
  ["a path of the cgroupfs driver", line(`/pod/berth-${id}`)],
  ["the end of init itself", killed(7324)],
])("the kernel's word is heard: %s", (_, record) => {
  expect(parseOomKill(record, id, init)?.task).toBe("dd");
});

test.each([
  ["the container's", line(`/pod/berth-${id}`), "container"],
  ["the pod's", line(`/pod/berth-${id}`).replace(/oom_memcg=[^,]*/, "oom_memcg=/pod"), "pod"],
  ["the node's", line(`/pod/berth-${id}`).replace(/,oom_memcg=[^,]*/, ",global_oom"), "node"],
])("it tells that the memory was %s", (_, record, limit) => {
  expect(parseOomKill(record, id, init)).toEqual({ task: "dd", limit });
});

test.each([
  ["another container", line("/test.slice/berth-ffff.scope")],
  ["a process under another's limit", line("/")],
  ["another process", killed(7325)],
  ["a process that had the pid before", killed(7324, 660_000_000)],
  ["what a program writes into the log", line(`/pod/berth-${id}`).replace("6,", "12,")],
  ["a line that goes on", ` SUBSYSTEM=cpu\n`],
  ["nothing", ""],
])("it is not confused with %s", (_, record) => {
  expect(parseOomKill(record, id, init)).toBeUndefined();
});
