import { Code } from "../../cri-api/index.ts";
import { expect, test } from "vitest";
import { buildCapabilities, capabilityNames, defaultCapabilities, knownCapabilities } from "./capabilities.ts";
import { securityContext } from "./testing.ts";

const held = knownCapabilities.filter((name) => name !== "CAP_SYS_RESOURCE");

function boundingFor(add: string[], drop: string[], ambient: string[] = []): readonly string[] {
  const capabilities = { addCapabilities: add, dropCapabilities: drop, addAmbientCapabilities: ambient };
  return buildCapabilities(securityContext({ capabilities }), held).bounding;
}

test("starts from the default set, whose mask is 0x5fb", () => {
  const { bounding, effective, permitted } = buildCapabilities(null, held);
  expect(bounding).toEqual(capabilityNames(0x5fbn));
  expect(effective).toEqual(bounding);
  expect(permitted).toEqual(bounding);
});

test("leaves inheritable and ambient empty (CVE-2022-27652, CVE-2018-1000400)", () => {
  expect(buildCapabilities(null, held)).toMatchObject({ inheritable: [], ambient: [] });
  expect(buildCapabilities(securityContext({ privileged: true }), held)).toMatchObject({
    inheritable: [],
    ambient: [],
  });
});

test.each([["NET_ADMIN"], ["CAP_NET_ADMIN"], ["net_admin"], ["cap_Net_Admin"]])("understands %s", (name) => {
  expect(boundingFor([name], [])).toContain("CAP_NET_ADMIN");
  expect(boundingFor(["NET_ADMIN"], [name])).not.toContain("CAP_NET_ADMIN");
});

test("handles ALL before single names", () => {
  expect(boundingFor(["NET_RAW"], ["all"])).toEqual(["CAP_NET_RAW"]);
  expect(boundingFor(["All"], [])).toEqual(held);
  expect(boundingFor(["ALL"], ["KILL"])).toEqual(held.filter((name) => name !== "CAP_KILL"));
  expect(boundingFor([], ["ALL"])).toEqual([]);
  expect(boundingFor(["ALL"], ["ALL"])).toEqual([]);
});

test("gives a privileged container what the daemon holds and no more", () => {
  expect(buildCapabilities(securityContext({ privileged: true }), held).bounding).toEqual(held);
});

test("gives no default capability that the daemon does not hold", () => {
  expect(buildCapabilities(null, ["CAP_CHOWN"]).bounding).toEqual(["CAP_CHOWN"]);
});

test("says so when a capability is asked for that the daemon does not hold", () => {
  expect(() => boundingFor(["SYS_RESOURCE"], [])).toThrow(expect.objectContaining({ code: Code.FailedPrecondition }));
});

test("refuses to add what it does not know, and passes over dropping it", () => {
  for (const name of ["NET_ADMINS", "", "CAP_", "CAP_CAP_KILL", "__proto__"]) {
    expect(() => boundingFor([name], [])).toThrow(expect.objectContaining({ code: Code.InvalidArgument }));
    expect(boundingFor([], [name])).toEqual(capabilityNames(0x5fbn));
  }
});

test("puts ambient capabilities in all five sets", () => {
  const capabilities = { addCapabilities: [], dropCapabilities: ["ALL"], addAmbientCapabilities: ["net_raw"] };
  const only = ["CAP_NET_RAW"];
  expect(buildCapabilities(securityContext({ capabilities }), held)).toEqual({
    bounding: only,
    effective: only,
    permitted: only,
    inheritable: only,
    ambient: only,
  });
});

test("names the bits of a mask in the kernel's order", () => {
  expect(capabilityNames((1n << 41n) - 1n)).toEqual(knownCapabilities);
  expect(capabilityNames(1n << 60n)).toEqual([]);
  expect(defaultCapabilities).toHaveLength(9);
});
