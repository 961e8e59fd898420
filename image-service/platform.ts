import { Code, CriError } from "../cri-api/index.ts";
import { quote } from "./reference.ts";

/** An OCI platform, by Go's names: `linux`, `amd64`, variant `v8`. */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string | undefined;
}

const goArchitectures: Partial<Record<NodeJS.Architecture, Platform>> = {
  x64: { os: "linux", architecture: "amd64" },
  arm64: { os: "linux", architecture: "arm64", variant: "v8" },
  arm: { os: "linux", architecture: "arm", variant: "v7" },
  ia32: { os: "linux", architecture: "386" },
  ppc64: { os: "linux", architecture: "ppc64le" },
  s390x: { os: "linux", architecture: "s390x" },
  riscv64: { os: "linux", architecture: "riscv64" },
  loong64: { os: "linux", architecture: "loong64" },
};

/** Processor features that each microarchitecture level of x86-64 adds, as /proc/cpuinfo spells them. */
const amd64Levels: readonly (readonly [variant: string, features: readonly string[]])[] = [
  ["v2", ["cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"]],
  ["v3", ["abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"]],
  ["v4", ["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]],
];

/**
 * The level of an x86-64 processor; undefined for the first one.
 *
 * @see https://gitlab.com/x86-psABIs/x86-64-ABI
 */
export function amd64Variant(cpuinfo: string): string | undefined {
  const flags = new Set(/^flags\s*:(.*)$/m.exec(cpuinfo)?.[1]?.trim().split(/\s+/));
  const missing = amd64Levels.findIndex(([, features]) => !features.every((feature) => flags.has(feature)));
  return amd64Levels.slice(0, missing === -1 ? undefined : missing).at(-1)?.[0];
}

/** This machine's platform; `cpuinfo` is the content of /proc/cpuinfo. */
export function hostPlatform(cpuinfo = ""): Platform {
  const platform = goArchitectures[process.arch] ?? { os: "linux", architecture: process.arch };
  return platform.architecture === "amd64" ? { ...platform, variant: amd64Variant(cpuinfo) } : platform;
}

/** Reads `os/architecture[/variant]`. @throws {CriError} `InvalidArgument`. */
export function parsePlatform(text: string): Platform {
  const [, os, architecture, variant] = /^([a-z0-9]{1,32})\/([a-z0-9]{1,32})(?:\/([a-z0-9.]{1,32}))?$/.exec(text) ?? [];
  if (os === undefined || architecture === undefined)
    throw new CriError(Code.InvalidArgument, `${quote(text)} is no platform such as linux/arm64/v8`);
  return { os, architecture, variant };
}

/** A word of a registry's as a person may be shown it. */
function showWord(word: string): string {
  return word.slice(0, maxShownLength).replace(/[^\x21-\x7e]/g, "?");
}

const maxShownLength = 32;

export function formatPlatform({ os, architecture, variant }: Platform): string {
  return [os, architecture, ...(variant ? [variant] : [])].map(showWord).join("/");
}

/** Variants this machine can run, best first; `undefined` stands for an entry that names none. */
function runnableVariants(platform: Platform): readonly (string | undefined)[] {
  if (platform.architecture === "arm64") return ["v8", undefined];
  if (platform.architecture === "arm") {
    const newest = Number(platform.variant?.slice(1) ?? "7");
    const variants = ["v8", "v7", "v6", "v5"].filter((variant) => Number(variant.slice(1)) <= newest);
    return [...variants, undefined];
  }
  if (platform.architecture === "amd64") {
    const newest = Number(platform.variant?.slice(1) ?? "1");
    const variants = ["v4", "v3", "v2"].filter((variant) => Number(variant.slice(1)) <= newest);
    return [...variants, undefined, "v1"];
  }
  return [platform.variant, undefined];
}

/** How well an entry fits: lower is better, `undefined` when it cannot run here. */
export function platformRank(wanted: Platform, offered: Platform): number | undefined {
  if (offered.os !== wanted.os || offered.architecture !== wanted.architecture) return undefined;
  const rank = runnableVariants(wanted).indexOf(offered.variant || undefined);
  return rank === -1 ? undefined : rank;
}
