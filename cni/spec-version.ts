/** The versions of the CNI specification that Berth speaks, oldest first. */
export const specVersions = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] as const;
export type SpecVersion = (typeof specVersions)[number];
export const newestSpecVersion = "1.1.0" satisfies SpecVersion;

export function isSpecVersion(text: string): text is SpecVersion {
  return specVersions.some((version) => version === text);
}

export function isAtLeast(version: SpecVersion, floor: SpecVersion): boolean {
  return specVersions.indexOf(version) >= specVersions.indexOf(floor);
}
