import { describe, expect, it } from "vitest";
import { parseLegacyConfig, parseNetworkList, serializeNetwork, toNetwork } from "./network-list.ts";

const bytes = (value: unknown): Buffer => Buffer.from(typeof value === "string" ? value : JSON.stringify(value));
const list = (fields: object): ReturnType<typeof parseNetworkList> =>
  parseNetworkList(bytes({ name: "net", cniVersion: "1.0.0", plugins: [{ type: "bridge" }], ...fields }));

describe("a network list", () => {
  it("keeps plugins in order with the capabilities that are true", () => {
    const plugins = [{ type: "bridge" }, { type: "portmap", capabilities: { portMappings: true, bandwidth: false } }];
    const parsed = list({ plugins });
    expect(parsed.plugins.map(({ type, capabilities }) => [type, capabilities])).toEqual([
      ["bridge", []],
      ["portmap", ["portMappings"]],
    ]);
    expect(parsed.plugins[1]?.fields).toEqual(plugins[1]);
  });

  it.each([
    [{ cniVersion: undefined }, ["0.1.0"]],
    [{ cniVersion: "0.4.0" }, ["0.4.0"]],
    [{ cniVersion: "1.0.0", cniVersions: ["0.4.0", "1.1.0", "9.0.0"] }, ["1.1.0", "1.0.0", "0.4.0"]],
    [{ cniVersion: undefined, cniVersions: ["1.1.0"] }, ["1.1.0"]],
  ])("allows the versions that are named and known: %j", (fields, versions) => {
    expect(list(fields).versions).toEqual(versions);
  });

  it.each([
    [true, true],
    [false, false],
    ["true", true],
    ["FALSE", false],
    [undefined, false],
  ])("reads disableCheck and disableGC %j as %j", (written, read) => {
    expect(list({ disableCheck: written, disableGC: written })).toMatchObject({ disableCheck: read, disableGC: read });
  });

  it.each([
    [
      "a type that leads out of the plugin folders (CVE-2021-20206)",
      { plugins: [{ type: "../../bin/sh" }] },
      /^plugins\.0\.type: must be a plain file name$/,
    ],
    ["a type that is a folder", { plugins: [{ type: ".." }] }, /^plugins\.0\.type: must be a plain file name$/],
    ["a type with a NUL", { plugins: [{ type: "a\u0000b" }] }, /^plugins\.0\.type: must be a plain file name$/],
    ["a plugin without type", { plugins: [{}] }, /^plugins\.0\.type: is missing$/],
    ["a plugin that is no object", { plugins: ["bridge"] }, /^plugins\.0: /],
    ["no plugins", { plugins: [] }, /^plugins: must not be empty$/],
    ["plugins that are no list", { plugins: {} }, /^plugins: must be a list$/],
    ["a name for a path", { name: "../x" }, /^name: must start with/],
    ["no name", { name: undefined }, /^name: is missing$/],
    ["a version from the future", { cniVersion: "2.0.0" }, /^cniVersion: "2.0.0" is none of 0\.1\.0, /],
    ["a flag that is a number", { disableGC: 1 }, /^disableGC: must be true or false/],
    [
      "capabilities that are no flags",
      { plugins: [{ type: "a", capabilities: { b: "yes" } }] },
      /^plugins\.0\.capabilities\.b: must be true or false$/,
    ],
    [
      "inlined plugins only, but none",
      { plugins: undefined, loadOnlyInlinedPlugins: true },
      /^plugins: must be present/,
    ],
  ])("refuses %s", (_, fields, message) => {
    expect(() => list(fields)).toThrow(message);
  });

  it.each(["", "nul", "null", "[]", "{", '"x"', '{"name":"n"}{'])("refuses %j", (text) => {
    expect(() => parseNetworkList(bytes(text))).toThrow(/not (valid JSON|a JSON object)/);
  });

  it("refuses bytes that are no UTF-8", () => {
    expect(() => parseNetworkList(Buffer.from([0x7b, 0xff, 0xfe, 0x7d]))).toThrow("not UTF-8");
  });

  it("gives short one-line reasons for thousands of damaged files, and takes no other type than it was given", () => {
    const whole = JSON.stringify({
      name: "net",
      cniVersion: "1.0.0",
      plugins: [{ type: "bridge", capabilities: { ips: true } }],
    });
    let seed = 7;
    const random = (below: number): number => (seed = (seed * 48_271) % 2_147_483_647) % below;
    for (let round = 0; round < 3000; round += 1) {
      const damaged = Buffer.from(whole);
      for (let count = random(4) + 1; count > 0; count -= 1) damaged[random(damaged.length)] = random(256);
      try {
        for (const { type } of parseNetworkList(damaged).plugins) expect(type).not.toContain("/");
      } catch (thrown) {
        expect(String(thrown)).toMatch(/^Error: [^\n]{1,1500}$/);
      }
    }
  });

  it("is complete in itself when serialized, in the version that was chosen", () => {
    const parsed = list({ cniVersions: ["1.1.0"], disableGC: "true", comment: "kept" });
    const serialized = serializeNetwork(
      toNetwork({ ...parsed, plugins: [...parsed.plugins, ...parsed.plugins] }, "1.0.0"),
    );
    const again = parseNetworkList(bytes(serialized));
    expect(again.versions).toEqual(["1.0.0"]);
    expect(again).toMatchObject({ name: "net", disableGC: true, loadOnlyInlinedPlugins: true });
    expect(again.plugins.map(({ type }) => type)).toEqual(["bridge", "bridge"]);
    expect(JSON.parse(serialized)).toMatchObject({ comment: "kept" });
  });
});

describe("a single-plugin file", () => {
  it("becomes a list of one", () => {
    const config = { name: "old", cniVersion: "0.3.1", type: "bridge", ipam: { type: "host-local" } };
    const parsed = parseLegacyConfig(bytes(config));
    expect(parsed).toMatchObject({ name: "old", versions: ["0.3.1"] });
    expect(parsed.plugins.map(({ fields }) => fields)).toEqual([config]);
  });

  it("says where a list belongs", () => {
    const config = { name: "old", cniVersion: "0.3.1", plugins: [{ type: "bridge" }] };
    expect(() => parseLegacyConfig(bytes(config))).toThrow("a list of plugins belongs in a file named .conflist");
  });
});
