import { isIP } from "node:net";
import { describe, expect, it } from "vitest";
import { readResult } from "./result.ts";
import { specVersions } from "./spec-version.ts";

const modern = {
  cniVersion: "1.0.0",
  interfaces: [
    { name: "cni0", mac: "aa:bb:cc:dd:ee:ff" },
    { name: "eth0", sandbox: "/run/netns/a" },
  ],
  ips: [
    { interface: 1, address: "10.1.0.5/24", gateway: "10.1.0.1" },
    { interface: 1, address: "fd00::5/64" },
  ],
  routes: [{ dst: "0.0.0.0/0" }, { dst: "::/0", gw: "fd00::1" }],
  dns: { nameservers: ["10.1.0.1"] },
};
const old = {
  cniVersion: "0.2.0",
  ip4: { ip: "10.1.0.5/24", gateway: "10.1.0.1", routes: [{ dst: "0.0.0.0/0" }] },
  ip6: { ip: "fd00::5/64", routes: [{ dst: "::/0", gw: "fd00::1" }] },
  dns: { nameservers: ["10.1.0.1"] },
};

describe("a result", () => {
  it("of the wanted version is handed on as it is, with keys nobody knows", () => {
    const given = { ...modern, later: { x: 1 } };
    expect(readResult(given, "1.0.0")).toEqual({ ips: ["10.1.0.5", "fd00::5"], raw: given });
  });

  it("without a version has that of the configuration", () => {
    const { cniVersion: _, ...plain } = old;
    expect(readResult(plain, "0.2.0")).toEqual({ ips: ["10.1.0.5", "fd00::5"], raw: old });
  });

  it("of 0.2 becomes one of 0.4, naming the families", () => {
    expect(readResult(old, "0.4.0").raw).toEqual({
      cniVersion: "0.4.0",
      ips: [
        { version: "4", address: "10.1.0.5/24", gateway: "10.1.0.1" },
        { version: "6", address: "fd00::5/64" },
      ],
      routes: [{ dst: "0.0.0.0/0" }, { dst: "::/0", gw: "fd00::1" }],
      dns: { nameservers: ["10.1.0.1"] },
    });
  });

  it("of 0.2 becomes one of 1.1 and back", () => {
    const { raw, ips } = readResult(old, "1.1.0");
    expect(ips).toEqual(["10.1.0.5", "fd00::5"]);
    expect(raw["ips"]).toEqual([{ address: "10.1.0.5/24", gateway: "10.1.0.1" }, { address: "fd00::5/64" }]);
    expect(readResult(raw, "0.2.0").raw).toEqual(old);
  });

  it("of 1.0 loses in 0.4 what 0.4 does not have", () => {
    const { raw } = readResult({ ...modern, interfaces: [{ name: "eth0", mtu: 1500, sandbox: "/n" }] }, "0.4.0");
    expect(raw["interfaces"]).toEqual([{ name: "eth0", sandbox: "/n" }]);
    expect(raw["ips"]).toEqual([
      { version: "4", interface: 1, address: "10.1.0.5/24", gateway: "10.1.0.1" },
      { version: "6", interface: 1, address: "fd00::5/64" },
    ]);
  });

  it("of 1.0 keeps everything in 1.1", () => {
    expect(readResult(modern, "1.1.0").raw).toEqual({ ...modern, cniVersion: "1.1.0" });
  });

  it("without addresses is one", () => {
    expect(readResult({ cniVersion: "1.0.0" }, "1.0.0")).toEqual({ ips: [], raw: { cniVersion: "1.0.0" } });
  });

  it("does not give the pod an address of the node's interface, unless there is no other", () => {
    const node = { interface: 0, address: "10.1.0.1/24" };
    expect(readResult({ ...modern, ips: [node, ...modern.ips] }, "1.0.0").ips).toEqual(["10.1.0.5", "fd00::5"]);
    expect(readResult({ ...modern, ips: [node] }, "1.0.0").ips).toEqual(["10.1.0.1"]);
  });

  it.each([
    [
      "an address without prefix",
      { ips: [{ address: "10.1.0.5" }] },
      /^ips\.0\.address: must be an address with its prefix/,
    ],
    ["a prefix out of range", { ips: [{ address: "10.1.0.5/33" }] }, /^ips\.0\.address/],
    ["an address with a zone", { ips: [{ address: "fe80::1%eth0/64" }] }, /^ips\.0\.address/],
    ["words for an address", { ips: [{ address: "localhost/8" }] }, /^ips\.0\.address/],
    ["ips that are no list", { ips: "10.1.0.5/24" }, /^ips: /],
    ["a gateway that is none", { ips: [{ address: "10.1.0.5/24", gateway: "x" }] }, /^ips\.0\.gateway/],
    ["a version that is none", { cniVersion: "7" }, /^cniVersion: "7" is not a version/],
    ["a version that is no text", { cniVersion: 1 }, /^cniVersion: 1 is not a version/],
  ])("is refused with %s", (_, fields, message) => {
    expect(() => readResult({ cniVersion: "1.0.0", ...fields }, "1.0.0")).toThrow(message);
  });

  it("made of thousands of random parts is read or refused in words, in every version", () => {
    const parts = [
      "1.0.0",
      "0.2.0",
      null,
      -1,
      1e9,
      [],
      {},
      "10.1.0.5/24",
      "x",
      [{ address: "10.1.0.5/24", interface: 9 }],
      { ip: "fd00::1/64" },
    ];
    const keys = ["cniVersion", "ips", "interfaces", "routes", "dns", "ip4", "ip6", "__proto__"];
    let seed = 11;
    const pick = <T>(from: readonly T[]): T | undefined => from[(seed = (seed * 48_271) % 2_147_483_647) % from.length];
    for (let round = 0; round < 3000; round += 1) {
      const fields = Object.fromEntries([1, 2, 3].map(() => [pick(keys), pick(parts)]));
      try {
        const { ips, raw } = readResult(fields, pick(specVersions) ?? "1.0.0");
        expect(ips.every((ip) => isIP(ip) !== 0)).toBe(true);
        expect(JSON.parse(JSON.stringify(raw))).toEqual(raw);
      } catch (thrown) {
        expect(String(thrown)).toMatch(/^Error: [^\n]{1,1500}$/);
      }
    }
  });
});
