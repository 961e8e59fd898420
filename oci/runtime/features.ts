import { release } from "node:os";
import * as v from "valibot";
import { Code, CriError } from "../../cri-api/index.ts";
import { readFileBounded, run } from "../../native/index.ts";
import { runtimeEnvironment } from "./invocation.ts";
import { parseJson } from "./state.ts";
import type { RuntimeFeatures } from "./types.ts";

export interface RuntimeFacts {
  readonly name: string;
  readonly version: string;
  readonly features: RuntimeFeatures;
}

/** What decides about a runtime's abilities beside itself. */
export interface KernelFacts {
  /** As uname tells it. */
  readonly release: string;
  /** False where the administrator allows none. */
  readonly allowsUserNamespaces: boolean;
}

const probeDeadlineMs = 10_000;
const maxSysctlBytes = 64;

/** Asks a runtime once, at start, what it is and what it can. @throws {CriError} `Internal` when it does not run. */
export async function probeRuntime(path: string): Promise<RuntimeFacts> {
  const [versionText, featuresText, kernel] = await Promise.all([
    probe(path, "--version"),
    probe(path, "features"),
    readKernelFacts(),
  ]);
  if (versionText === undefined) throw new CriError(Code.Internal, `runtime "${path}" does not tell its version`);
  const { name, version } = parseVersion(versionText);
  return { name, version, features: decideFeatures(name, version, featuresText, kernel) };
}

async function readKernelFacts(): Promise<KernelFacts> {
  const limit = await readFileBounded("/proc/sys/user/max_user_namespaces", maxSysctlBytes);
  return { release: release(), allowsUserNamespaces: Number(limit?.toString() ?? 0) > 0 };
}

/** Undefined when it fails: crun has `features` only from 1.8.6. */
async function probe(path: string, command: string): Promise<string | undefined> {
  const signal = AbortSignal.timeout(probeDeadlineMs);
  const { status, stdout } = await run({ argv: [path, command], env: runtimeEnvironment, signal });
  return status.kind === "exited" && status.code === 0 ? stdout.toString("utf8") : undefined;
}

/** `crun version 1.8.1`, `runc version 1.1.5+ds1`. */
export function parseVersion(text: string): { readonly name: string; readonly version: string } {
  const [, name, version] = /^(\S+) version (\d+(?:\.\d+)*\S*)/.exec(text) ?? [];
  return { name: name ?? "unknown", version: version ?? "unknown" };
}

const ability = v.optional(v.object({ enabled: v.optional(v.boolean(), false) }), {});
const featuresSchema = v.object({
  mountOptions: v.optional(v.array(v.string())),
  linux: v.optional(
    v.object({ mountExtensions: v.optional(v.object({ idmap: ability }), {}), netDevices: ability }),
    {},
  ),
});

/**
 * The kernel has recursive read-only since 5.12 (mount_setattr); crun since 1.4, long before it could tell. A root
 * filesystem with mapped owners takes idmapped layers below an overlay, which are from 5.19.
 */
export function decideFeatures(
  name: string,
  version: string,
  featuresText: string | undefined,
  kernel: KernelFacts,
): RuntimeFeatures {
  const parsed = v.safeParse(featuresSchema, parseJson(featuresText ?? ""));
  const told = parsed.success ? parsed.output : v.parse(featuresSchema, {});
  const saysRro = told.mountOptions?.includes("rro") ?? (name === "crun" && isAtLeast(version, [1, 4]));
  const { mountExtensions, netDevices } = told.linux;
  return {
    recursiveReadOnlyMounts: saysRro && isAtLeast(kernel.release, [5, 12]),
    userNamespaces: mountExtensions.idmap.enabled && kernel.allowsUserNamespaces && isAtLeast(kernel.release, [5, 19]),
    networkDevices: netDevices.enabled,
  };
}

function isAtLeast(version: string, wanted: readonly [number, number]): boolean {
  const [major = 0, minor = 0] = version.split(/[.+-]/).map((part) => Number.parseInt(part, 10) || 0);
  return major > wanted[0] || (major === wanted[0] && minor >= wanted[1]);
}
