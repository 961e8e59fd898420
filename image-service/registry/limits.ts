/** Bounds on what a registry or a layer may make this daemon do; each is met with an error that names it. */
export interface PullLimits {
  readonly manifestBytes: number;
  readonly configBytes: number;
  readonly tokenBytes: number;
  /** Overlayfs takes some two hundred lower folders in one mount. */
  readonly layers: number;
  /** Uncompressed bytes of one layer: the end of a decompression bomb. */
  readonly layerBytes: number;
  /** An archive of images that is imported, decompressed. */
  readonly archiveBytes: number;
  /** Members of one layer, with the folders that these only name on their way. */
  readonly layerEntries: number;
  readonly pathDepth: number;
  /** Names and extended attributes of one layer's folders, which are kept until its end, in bytes. */
  readonly folderBytes: number;
  /** Extended headers (pax, GNU long names) in front of one entry, in bytes; and those that hold for all entries. */
  readonly tarMetadataBytes: number;
}

export const defaultLimits: PullLimits = {
  manifestBytes: 4 << 20,
  configBytes: 4 << 20,
  tokenBytes: 256 << 10,
  layers: 200,
  layerBytes: 256 * 2 ** 30,
  archiveBytes: 1024 * 2 ** 30,
  layerEntries: 1_000_000,
  pathDepth: 512,
  folderBytes: 128 << 20,
  tarMetadataBytes: 1 << 20,
};

/** How often and how patiently a failed request is tried again. */
export interface RetryPolicy {
  readonly attempts: number;
  readonly baseDelayMs: number;
  readonly maxDelayMs: number;
  /** Longest silence of a connection, in headers or body, before it counts as broken. */
  readonly idleTimeoutMs: number;
  /** Longest time in which no byte of a layer is downloaded or unpacked, over all hosts and tries. */
  readonly progressTimeoutMs: number;
  /** How long a blob comes over one connection before several are considered, and over so many before more are. */
  readonly rangesAfterMs: number;
}

export const defaultRetry: RetryPolicy = {
  attempts: 5,
  baseDelayMs: 500,
  maxDelayMs: 30_000,
  idleTimeoutMs: 60_000,
  progressTimeoutMs: 300_000,
  rangesAfterMs: 500,
};
