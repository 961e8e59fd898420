import type { cri, Init } from "../cri-api/index.ts";
import type { RootfsStore } from "./rootfs.ts";
import type { LayerStore } from "./store/layer-store.ts";

/**
 * ImageFsInfo, from memory. Both kinds live below one root and name it, since kubelet takes two different mountpoints
 * for two disks.
 */
export function imageFsInfo(root: string, layers: LayerStore, rootfs: RootfsStore): Init<cri.ImageFsInfoResponse> {
  const timestamp = BigInt(Date.now()) * 1_000_000n;
  const images = layers.usage();
  const containers = { usedBytes: 0n, inodesUsed: 0n };
  for (const id of rootfs.ids()) {
    const usage = rootfs.usage(id);
    containers.usedBytes += usage?.usedBytes ?? 0n;
    containers.inodesUsed += usage?.inodesUsed ?? 0n;
  }
  const filesystem = (usedBytes: bigint, inodesUsed: bigint): Init<cri.FilesystemUsage> => ({
    timestamp,
    fsId: { mountpoint: root },
    usedBytes: { value: usedBytes },
    inodesUsed: { value: inodesUsed },
  });
  return {
    imageFilesystems: [filesystem(BigInt(images.usedBytes), BigInt(images.inodes))],
    containerFilesystems: [filesystem(containers.usedBytes, containers.inodesUsed)],
  };
}
