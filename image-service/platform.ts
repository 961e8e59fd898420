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

export function hostPlatform(): Platform {
  return goArchitectures[process.arch] ?? { os: "linux", architecture: process.arch };
}

export function formatPlatform(platform: Platform): string {
  const variant = platform.variant ? `/${platform.variant}` : "";
  return `${platform.os}/${platform.architecture}${variant}`;
}

/** Variants this machine can run, best first; `undefined` stands for an entry that names none. */
function runnableVariants(platform: Platform): readonly (string | undefined)[] {
  if (platform.architecture === "arm64") return ["v8", undefined];
  if (platform.architecture === "arm") {
    const newest = Number(platform.variant?.slice(1) ?? "7");
    const variants = ["v8", "v7", "v6", "v5"].filter((variant) => Number(variant.slice(1)) <= newest);
    return [...variants, undefined];
  }
  if (platform.architecture === "amd64") return [platform.variant, undefined, "v1"];
  return [platform.variant, undefined];
}

/** How well an entry fits: lower is better, `undefined` when it cannot run here. */
export function platformRank(wanted: Platform, offered: Platform): number | undefined {
  if (offered.os !== wanted.os || offered.architecture !== wanted.architecture) return undefined;
  const rank = runnableVariants(wanted).indexOf(offered.variant || undefined);
  return rank === -1 ? undefined : rank;
}
