/** What a device of the Container Device Interface changes in a container; as the files have it, with defaults. */
export interface CdiEdits {
  /** `NAME=VALUE` entries. */
  readonly env: readonly string[];
  readonly deviceNodes: readonly CdiDeviceNode[];
  readonly mounts: readonly CdiMount[];
  readonly hooks: readonly CdiHook[];
  readonly additionalGids: readonly number[];
  readonly intelRdt?: CdiIntelRdt | undefined;
  readonly netDevices: readonly CdiNetDevice[];
}

/** An interface of the host that moves into the container's network namespace. */
export interface CdiNetDevice {
  readonly hostInterfaceName: string;
  /** In the container. */
  readonly name: string;
}

export interface CdiDeviceNode {
  /** In the container. */
  readonly path: string;
  /** On the host; absent is the same. */
  readonly hostPath?: string | undefined;
  /** What is not given is taken from the host's node. */
  readonly type?: "" | "b" | "c" | "u" | "p" | undefined;
  readonly major?: number | undefined;
  readonly minor?: number | undefined;
  readonly fileMode?: number | undefined;
  /** Absent is the container's user. */
  readonly uid?: number | undefined;
  readonly gid?: number | undefined;
  /** Letters out of `rwm`; "" is all three, `none` is none. */
  readonly permissions: string;
}

export interface CdiMount {
  readonly hostPath: string;
  readonly containerPath: string;
  readonly options: readonly string[];
  /** "" is a bind mount. */
  readonly type: string;
}

export interface CdiHook {
  readonly hookName: "prestart" | "createRuntime" | "createContainer" | "startContainer" | "poststart" | "poststop";
  readonly path: string;
  readonly args: readonly string[];
  readonly env: readonly string[];
  /** Seconds. */
  readonly timeout?: number | undefined;
}

/** In the words of the runtime specification's `linux.intelRdt`. */
export interface CdiIntelRdt {
  readonly closID?: string | undefined;
  readonly l3CacheSchema?: string | undefined;
  readonly memBwSchema?: string | undefined;
  readonly schemata?: readonly string[] | undefined;
  readonly enableMonitoring?: boolean | undefined;
  readonly enableCMT?: boolean | undefined;
  readonly enableMBM?: boolean | undefined;
}

/** One file: devices of one kind. */
export interface CdiSpec {
  /** `vendor.com/class` */
  readonly kind: string;
  /** Made once where any of its devices is given. */
  readonly containerEdits: CdiEdits;
  readonly devices: ReadonlyMap<string, CdiEdits>;
}

/** All of them as one, in their order; of two classes of service the last one counts. */
export function joinCdiEdits(all: readonly CdiEdits[]): CdiEdits {
  const intelRdt = all.findLast((edits) => edits.intelRdt)?.intelRdt;
  return {
    env: all.flatMap(({ env }) => env),
    deviceNodes: all.flatMap(({ deviceNodes }) => deviceNodes),
    mounts: all.flatMap(({ mounts }) => mounts),
    hooks: all.flatMap(({ hooks }) => hooks),
    additionalGids: all.flatMap(({ additionalGids }) => additionalGids),
    netDevices: all.flatMap(({ netDevices }) => netDevices),
    ...(intelRdt ? { intelRdt } : {}),
  };
}
