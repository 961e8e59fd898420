import { expect, test } from "vitest";
import { buildContainerSpec } from "./container-spec.ts";
import { seccompKey, withBuiltSeccomp } from "./seccomp-reuse.ts";
import { containerConfig, linuxResources, securityContext, specInput } from "./testing.ts";

const confined = (add: string[] = []) => {
  const context = securityContext({
    seccomp: { profileType: "RuntimeDefault", localhostRef: "" },
    capabilities: { addCapabilities: add, dropCapabilities: [], addAmbientCapabilities: [] },
  });
  const linux = { resources: linuxResources({ cpuShares: 5n }), securityContext: context };
  return buildContainerSpec(specInput({ config: containerConfig({ linux }) }));
};

test("containers with the same calls allowed share a filter, others do not", () => {
  expect(seccompKey(confined())).toBe(seccompKey(confined(["NET_RAW"])));
  expect(seccompKey(confined())).not.toBe(seccompKey(confined(["SYS_ADMIN"])));
  expect(seccompKey(buildContainerSpec(specInput()))).toBeUndefined();
});

test("a built filter goes in beside the profile and changes nothing else", () => {
  const spec = confined();
  const { annotations, ...rest } = withBuiltSeccomp(spec, Buffer.from([1, 2, 255]));
  expect(annotations).toEqual({ "run.oci.seccomp_bpf_data": "AQL/" });
  expect(rest).toEqual(spec);
});
