import { getMachine } from "./events.ts";
import { splitReads } from "./files.ts";
import { requireAbsolute } from "./syscall-error.ts";

/** What one network interface has carried since it was made. */
export interface InterfaceCounters {
  readonly name: string;
  readonly received: TrafficCounters;
  readonly transmitted: TrafficCounters;
}

interface TrafficCounters {
  readonly bytes: bigint;
  readonly packets: bigint;
  readonly errors: bigint;
  readonly dropped: bigint;
}

/** Some thousand interfaces. */
const maxTextBytes = 1024 * 1024;
/** A line has eight counts of each direction behind the name. */
const countsPerDirection = 8;

/**
 * Counters of every interface in each of these network namespaces, in the order asked, `undefined` where one cannot be
 * entered. No process is needed inside: a thread of the addon goes from one to the next.
 */
export async function readInterfaceCounters(
  netnsPaths: readonly string[],
): Promise<readonly (readonly InterfaceCounters[] | undefined)[]> {
  for (const path of netnsPaths) requireAbsolute("open", path);
  const { output } = await getMachine().job("slow", undefined, (addon, token) =>
    addon.readNetworkDevices(token, netnsPaths, maxTextBytes),
  );
  return splitReads(output, netnsPaths.length).map((text) => text && parseNetworkDevices(text.toString("latin1")));
}

/** Lines of /proc/net/dev after the two that head them: `eth0: 1 2 3 …`, the name against the right of its column. */
export function parseNetworkDevices(text: string): readonly InterfaceCounters[] {
  const interfaces: InterfaceCounters[] = [];
  for (const line of text.split("\n").slice(2)) {
    const nameEnd = line.lastIndexOf(":"); // a name may hold one, the counts do not
    if (nameEnd < 0) continue;
    const counts = line.slice(nameEnd + 1).match(/\d+/g) ?? [];
    if (counts.length < 2 * countsPerDirection) continue;
    interfaces.push({
      name: line.slice(0, nameEnd).trim(),
      received: toCounters(counts.slice(0, countsPerDirection)),
      transmitted: toCounters(counts.slice(countsPerDirection)),
    });
  }
  return interfaces;
}

function toCounters([bytes = "0", packets = "0", errors = "0", dropped = "0"]: readonly string[]): TrafficCounters {
  return { bytes: BigInt(bytes), packets: BigInt(packets), errors: BigInt(errors), dropped: BigInt(dropped) };
}
