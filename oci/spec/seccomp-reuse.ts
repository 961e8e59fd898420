import type { Spec } from "./oci-types.ts";

/** What decides a container's filter: equal keys mean that one built filter serves both. Undefined is no filter. */
export function seccompKey(spec: Spec): string | undefined {
  return spec.linux.seccomp && JSON.stringify(spec.linux.seccomp);
}

/**
 * Hands crun a filter that it built before, for a spec with the same `seccompKey`; it leaves it as `seccomp.bpf` in the
 * container's state directory. Building one takes 10 to 20 ms of CPU, more than the rest of a create. The profile stays
 * in the spec, for those who read it there.
 *
 * @see https://github.com/containers/crun/blob/1.8.1/crun.1.md#runociseccomp_bpf_datapath
 */
export function withBuiltSeccomp(spec: Spec, filter: Buffer): Spec {
  return {
    ...spec,
    annotations: { ...spec.annotations, "run.oci.seccomp_bpf_data": filter.toString("base64") },
  };
}
