import type { Config } from "../config.ts";
import type { Finding } from "./finding.ts";
import { checkApparmor, checkCgroupDriver, checkCgroups, checkKernel, checkSelinux } from "./kernel.ts";
import { checkOverlay, checkRights, checkSeccomp, checkSettings } from "./kernel.ts";
import type { Machine } from "./machine.ts";
import { checkNetwork, checkPrograms, checkRegistries } from "./programs.ts";
import { checkDisk, checkState } from "./state.ts";
import { checkSignaturePolicies } from "./trust.ts";

/** Looks at everything that pods will need here. Changes nothing. */
export async function examine(machine: Machine, config: Config): Promise<Finding[]> {
  const checks = [
    checkRights(machine),
    checkKernel(machine),
    checkPrograms(machine, config),
    checkNetwork(machine, config),
    checkRegistries(machine, config),
    checkOverlay(machine, config),
    checkDisk(machine, config),
    checkState(machine, config),
    checkCgroups(machine),
    checkCgroupDriver(machine, config),
    checkSettings(machine),
    checkSeccomp(machine),
    checkApparmor(machine),
    checkSignaturePolicies(machine, config),
    checkSelinux(machine),
  ];
  return (await Promise.all(checks)).flat();
}
