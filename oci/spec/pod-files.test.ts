import { Code } from "../../cri-api/index.ts";
import { describe, expect, test } from "vitest";
import { assertHostname, hostsText, resolvConfText } from "./pod-files.ts";
import { validateSysctls } from "./sysctls.ts";
import { assertNoControlCharacters } from "./text.ts";

const refused = expect.objectContaining({ code: Code.InvalidArgument });

describe("resolvConfText", () => {
  test("writes searches, servers and options", () => {
    const dns = {
      servers: ["10.0.0.10", "fd00::a", "fe80::1%eth0"],
      searches: ["a.svc.cluster.local", "cluster.local", "."],
      options: ["ndots:5", "edns0"],
    };
    expect(resolvConfText(dns)).toBe(
      [
        "search a.svc.cluster.local cluster.local .",
        "nameserver 10.0.0.10",
        "nameserver fd00::a",
        "nameserver fe80::1%eth0",
        "options ndots:5 edns0",
        "",
      ].join("\n"),
    );
  });

  test("is empty where nothing is asked for", () => {
    expect(resolvConfText({ servers: [], searches: [], options: [] })).toBe("");
  });

  test.each([
    { servers: ["10.0.0.10\nnameserver 6.6.6.6"], searches: [], options: [] },
    { servers: ["dns.example"], searches: [], options: [] },
    { servers: [""], searches: [], options: [] },
    { servers: ["fe80::1%eth0\n"], searches: [], options: [] },
    { servers: [], searches: ["a b"], options: [] },
    { servers: [], searches: ["a\rb"], options: [] },
    { servers: [], searches: [""], options: [] },
    { servers: [], searches: [], options: ["ndots:5\nnameserver 6.6.6.6"] },
    { servers: [], searches: [], options: ["#x"] },
  ])("refuses %o", (dns) => {
    expect(() => resolvConfText(dns)).toThrow(refused);
  });
});

test("writes hosts with the pod's name by each of its addresses", () => {
  expect(hostsText("pod", ["10.1.2.3", "fd00::3"])).toBe(
    "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n10.1.2.3\tpod\nfd00::3\tpod\n",
  );
  expect(() => hostsText("pod", ["10.1.2.3\n"])).toThrow(refused);
  expect(() => hostsText("pod\n6.6.6.6 bank", [])).toThrow(refused);
});

test("takes hostnames that the kernel and DNS take", () => {
  for (const name of ["a", "pod-1", "a.b.c", "A9", "x".repeat(64)]) expect(() => assertHostname(name)).not.toThrow();
  for (const name of ["", "-a", "a-", "a_b", "a b", "a\n", "ü", "x".repeat(65)]) {
    expect(() => assertHostname(name)).toThrow(refused);
  }
});

test("finds every kind of control character", () => {
  for (const code of [0, 9, 10, 13, 0x1b, 0x7f, 0x85, 0x9f, 0x2028, 0x2029]) {
    expect(() => assertNoControlCharacters("field", `a${String.fromCodePoint(code)}b`)).toThrow(/^field "a.*control/);
  }
  expect(() => assertNoControlCharacters("field", "a b ü \\n 😀")).not.toThrow();
});

describe("validateSysctls", () => {
  const own = { hasNetworkNamespace: true, hasIpcNamespace: true };

  test.each([
    "kernel.shm_rmid_forced",
    "kernel.shmmax",
    "kernel.msgmax",
    "kernel.sem",
    "fs.mqueue.msg_max",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.conf.eth0.forwarding",
    "net.core.somaxconn",
  ])("takes %s", (name) => {
    expect(validateSysctls({ [name]: "1 2" }, own)).toEqual({ [name]: "1 2" });
  });

  test("takes slashes for dots", () => {
    expect(validateSysctls({ "net/ipv4/ip_forward": "1" }, own)).toEqual({ "net.ipv4.ip_forward": "1" });
  });

  test.each([
    "kernel.core_pattern",
    "kernel.hostname",
    "kernel.domainname",
    "kernel.msgmax.x",
    "vm.swappiness",
    "fs.mqueue.",
    "fs.mqueue/../../kernel/core_pattern",
    "net",
    "net.",
    "net..x",
    "net.ipv4.../../kernel.core_pattern",
    "net/../kernel/core_pattern",
    "net/./x",
    "net//x",
    "/net/x",
    "net.ipv4.x\n",
    "net.ipv4.x=1+kernel.core_pattern",
    "",
    `net.${"x".repeat(300)}`,
  ])("refuses %j", (name) => {
    expect(() => validateSysctls({ [name]: "1" }, own)).toThrow(refused);
  });

  test("refuses a value with a line break (CVE-2022-0811 was a value that became two)", () => {
    for (const value of ["1\n2", "1\0", "x".repeat(5000)]) {
      expect(() => validateSysctls({ "kernel.sem": value }, own)).toThrow(refused);
    }
    expect(validateSysctls({ "kernel.sem": "1+kernel.core_pattern=x" }, own)).toBeDefined();
  });

  test("refuses what belongs to a namespace that the pod shares with the host (CVE-2022-0532)", () => {
    const hostIpc = { hasNetworkNamespace: true, hasIpcNamespace: false };
    const hostNetwork = { hasNetworkNamespace: false, hasIpcNamespace: true };
    expect(() => validateSysctls({ "kernel.shmmax": "1" }, hostIpc)).toThrow(/host's IPC namespace/);
    expect(() => validateSysctls({ "fs.mqueue.msg_max": "1" }, hostIpc)).toThrow(/host's IPC namespace/);
    expect(() => validateSysctls({ "net.core.somaxconn": "1" }, hostNetwork)).toThrow(/host's network namespace/);
    expect(validateSysctls({ "kernel.shmmax": "1" }, hostNetwork)).toBeDefined();
  });
});
