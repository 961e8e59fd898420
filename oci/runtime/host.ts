import type { Logger } from "../../cri-api/index.ts";
import type { CgroupMounts } from "./cgroup-paths.ts";
import type { Monitor } from "./monitor.ts";
import type { StateStore } from "./state.ts";
import type { RuntimeConfig } from "./types.ts";

/** What every operation of one runtime handler works with; made once by `createRuntime`. */
export interface RuntimeHost {
  readonly config: RuntimeConfig;
  /** What the program calls itself, `crun` or `runc`: they differ in more than speed. */
  readonly program: string;
  readonly monitor: Monitor;
  readonly cgroupMounts: CgroupMounts;
  readonly states: StateStore;
  readonly log: Logger;
}
