import type { Platform } from "./platform.ts";
import type { RegistriesConfig } from "./registries/config.ts";
import type { PullLimits, RetryPolicy } from "./registry/limits.ts";
import type { PolicyPlaces } from "./trust/policy-files.ts";

/** Where it is said which images may be used, and where their signatures are. */
export interface TrustConfig extends PolicyPlaces {
  /** Folder of files in the format of containers-registries.d(5). */
  readonly registriesDirectory: string;
}

/** The image service's slice of the configuration. */
export interface ImageServiceConfig {
  /** Absolute path; `images`, `layers`, `imports` and `containers` are made in it, for root alone (0700). */
  readonly root: string;
  /** The files that say how registries are reached. */
  readonly registries: RegistriesConfig;
  /** Images that kubelet's garbage collection keeps: names, or full names with `*` for any text. */
  readonly pinned?: readonly string[] | undefined;
  readonly trust: TrustConfig;
  /** What to choose from an index; this machine's own when absent. */
  readonly platform?: Platform | undefined;
  readonly limits?: Partial<PullLimits> | undefined;
  readonly retry?: Partial<RetryPolicy> | undefined;
  /** Threads for downloads and unpacking; the machine's cores, at most 4, when absent. */
  readonly maxWorkers?: number | undefined;
  /** How long an idle thread is kept, in milliseconds; 5000 when absent. */
  readonly workerIdleMs?: number | undefined;
}
