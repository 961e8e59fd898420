/** What names an attachment to the plugins, beside the network. */
export interface AttachmentName {
  readonly containerId: string;
  readonly ifName: string;
}

/** What this process did to attachments, which the cache on disk cannot tell. */
export interface AttachmentMemory {
  /** Call before the cache knows it, so that no garbage collection takes it for stale. */
  begin(attachment: AttachmentName): void;
  end(attachment: AttachmentName): void;
  /** True if its DEL succeeded: StopPodSandbox and RemovePodSandbox both ask for one, and each costs 100 ms. */
  hasEnded(attachment: AttachmentName): boolean;
  alive(): readonly AttachmentName[];
}

const maxEnded = 4096;

export function createAttachmentMemory(): AttachmentMemory {
  const alive = new Map<string, AttachmentName>();
  const ended = new Set<string>();
  return {
    begin({ containerId, ifName }) {
      const key = keyOf({ containerId, ifName });
      alive.set(key, { containerId, ifName });
      ended.delete(key);
    },
    end(attachment) {
      const key = keyOf(attachment);
      alive.delete(key);
      ended.add(key);
      const [oldest] = ended;
      if (ended.size > maxEnded && oldest !== undefined) ended.delete(oldest);
    },
    hasEnded: (attachment) => ended.has(keyOf(attachment)),
    alive: () => [...alive.values()],
  };
}

/** Neither part can hold a slash. */
export function keyOf({ containerId, ifName }: AttachmentName): string {
  return `${containerId}/${ifName}`;
}
