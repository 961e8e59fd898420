import type { Config } from "../config.ts";
import type { Finding } from "./finding.ts";
import { checkApparmor, checkCgroups, checkOverlay, checkRights, checkSeccomp } from "./kernel.ts";
import type { Machine } from "./machine.ts";
import { checkNetwork, checkPrograms } from "./programs.ts";

/** Looks at everything that pods will need here. Changes nothing. */
export async function examine(machine: Machine, config: Config): Promise<Finding[]> {
  const checks = [
    checkRights(machine),
    checkPrograms(machine, config),
    checkNetwork(machine, config),
    checkOverlay(machine, config),
    checkCgroups(machine),
    checkSeccomp(machine),
    checkApparmor(machine),
  ];
  return (await Promise.all(checks)).flat();
}
