import { describe, expect, test } from "vitest";
import { parseCdiFile } from "./cdi-file.ts";

const device = { name: "gpu0", containerEdits: { env: ["A=b"] } };
const file = { cdiVersion: "0.6.0", kind: "vendor.com/gpu", devices: [device] };
const json = (value: unknown) => parseCdiFile(Buffer.from(JSON.stringify(value)), "json");
const yaml = (text: string) => parseCdiFile(Buffer.from(text), "yaml");

describe("parseCdiFile", () => {
  test("reads all that the specification has", async () => {
    const containerEdits = {
      env: ["NAME=a=b"],
      deviceNodes: [
        {
          path: "/dev/a",
          hostPath: "/dev/b",
          type: "c",
          major: 1,
          minor: 3,
          fileMode: 438,
          permissions: "rw",
          uid: 5,
          gid: 6,
        },
        { path: "/dev/b" },
      ],
      mounts: [{ hostPath: "/lib/x", containerPath: "/lib/x", options: ["ro", "rbind"], type: "bind" }],
      hooks: [{ hookName: "createContainer", path: "/bin/true", args: ["true", "x"], env: ["A=b"], timeout: 3 }],
      additionalGids: [5, 6],
      intelRdt: { closID: "guaranteed", l3CacheSchema: "L3:0=f", enableCMT: true },
      netDevices: [{ hostInterfaceName: "ens2.100", name: "net0" }],
    };
    const spec = await json({
      ...file,
      annotations: { a: "b" },
      containerEdits,
      devices: [{ ...device, annotations: {} }],
    });
    expect(spec.kind).toBe("vendor.com/gpu");
    expect(spec.containerEdits).toMatchObject(containerEdits);
    expect(spec.devices.get("gpu0")).toEqual({
      ...device.containerEdits,
      deviceNodes: [],
      mounts: [],
      hooks: [],
      additionalGids: [],
      netDevices: [],
    });
  });

  test("reads YAML as its writers mean it: a leading zero is octal, an anchor is a copy", async () => {
    const spec = await yaml(`
cdiVersion: "0.5.0"
kind: vendor.com/gpu
devices:
  - name: "0"
    containerEdits: &common
      deviceNodes:
        - path: /dev/gpu0
          fileMode: 0660
  - name: all
    containerEdits: *common
`);
    expect(spec.devices.get("all")?.deviceNodes).toEqual([{ path: "/dev/gpu0", fileMode: 0o660, permissions: "" }]);
  });

  test.each([
    [{ cdiVersion: "2.0.0" }, /"cdiVersion" must be one of/],
    [{ kind: "gpu" }, /"kind" must be vendor\/class/],
    [{ kind: "vendor.com/gpu/x" }, /"kind"/],
    [{ devices: [] }, /"devices" must name a device/],
    [{ devices: [device, device] }, /a device is there twice/],
    [{ devices: [{ ...device, name: "a b" }] }, /"devices.0.name" is no device name/],
    [{ devices: [{ name: "x" }] }, /key "devices.0.containerEdits"/],
    [{ unknown: 1 }, /unknown or missing key "unknown"/],
    [{ containerEdits: { env: ["NOVALUE"] } }, /"containerEdits.env.0" must be NAME=VALUE/],
    [{ containerEdits: { deviceNodes: [{ path: "dev" }] } }, /must be an absolute path/],
    [{ containerEdits: { deviceNodes: [{ path: "/dev/x", major: -1 }] } }, /"containerEdits.deviceNodes.0.major"/],
    [{ containerEdits: { deviceNodes: [{ path: "/dev/x", permissions: "x" }] } }, /permissions/],
    [{ containerEdits: { hooks: [{ hookName: "later", path: "/x" }] } }, /is no hook/],
    [{ containerEdits: { hooks: [{ hookName: "poststop", path: "x" }] } }, /must be an absolute path/],
    [{ containerEdits: { mounts: [{ hostPath: "/a", containerPath: "b" }] } }, /must be an absolute path/],
    [{ containerEdits: { intelRdt: { closID: "../x" } } }, /closID/],
    [{ containerEdits: { netDevices: [{ hostInterfaceName: "eth0" }] } }, /key "containerEdits.netDevices.0.name"/],
    [{ containerEdits: { netDevices: [{ hostInterfaceName: "a/b", name: "b" }] } }, /is no name of an interface/],
    [{ containerEdits: { netDevices: [{ hostInterfaceName: "a", name: "sixteen-letters-" }] } }, /no name of an/],
  ])("refuses %j by naming the key", async (change, text) => {
    await expect(json({ ...file, ...change })).rejects.toThrow(text);
  });

  test("refuses what is no document, and one that grows without end", async () => {
    await expect(parseCdiFile(Buffer.from([0xff, 0xfe]), "json")).rejects.toThrow();
    await expect(parseCdiFile(Buffer.from("{"), "json")).rejects.toThrow();
    await expect(json([])).rejects.toThrow();
    const levels = Array.from({ length: 30 }, (_, n) => `a${n + 1}: &a${n + 1} [*a${n}, *a${n}, *a${n}, *a${n}]`);
    await expect(yaml(["a0: &a0 [x]", ...levels].join("\n"))).rejects.toThrow(/alias/i);
  });
});
