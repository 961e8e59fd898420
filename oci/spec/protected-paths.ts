import type { cri } from "../../cri-api/index.ts";
import { cleanAbsolutePath } from "./text.ts";

/** What kubelet sends for the Default proc mount: host-wide facts and controls that no namespace hides. */
const defaultMaskedPaths: readonly string[] = [
  "/proc/acpi",
  "/proc/asound",
  "/proc/interrupts",
  "/proc/kcore",
  "/proc/keys",
  "/proc/latency_stats",
  "/proc/sched_debug",
  "/proc/scsi",
  "/proc/timer_list",
  "/proc/timer_stats",
  "/sys/devices/virtual/powercap",
  "/sys/firmware",
];

const defaultReadonlyPaths: readonly string[] = [
  "/proc/bus",
  "/proc/fs",
  "/proc/irq",
  "/proc/sys",
  "/proc/sysrq-trigger",
];

export interface ProtectedPaths {
  readonly maskedPaths: readonly string[];
  readonly readonlyPaths: readonly string[];
}

/**
 * The CRI's lists as they are: kubelet always sends them, and an empty one is its word for "none" (procMount
 * Unmasked), as containerd and CRI-O take it. Only a container without any security context, which no kubelet sends,
 * gets our own lists. Privileged has none.
 *
 * @throws {CriError} `InvalidArgument` for a path that is not absolute.
 */
export function buildProtectedPaths(
  context: Pick<cri.LinuxContainerSecurityContext, "maskedPaths" | "readonlyPaths" | "privileged"> | null,
): ProtectedPaths {
  if (!context) return { maskedPaths: defaultMaskedPaths, readonlyPaths: defaultReadonlyPaths };
  if (context.privileged) return { maskedPaths: [], readonlyPaths: [] };
  return {
    maskedPaths: context.maskedPaths.map((path) => cleanAbsolutePath("masked path", path)),
    readonlyPaths: context.readonlyPaths.map((path) => cleanAbsolutePath("read-only path", path)),
  };
}
