/** The CNI 1.1.0 client: finds the node's network, attaches pods to it, detaches them and cleans up. */
export { type Cni, type CniConfig, type CniParts, createCni } from "./cni.ts";
/** One pod's interface and what it asks of the network. */
export type { Attachment, Bandwidth, Dns, IpRange, PortMapping } from "./attachment.ts";
/** What names an attachment. */
export type { AttachmentName } from "./attachment-memory.ts";
/** The answer to "can pods be given a network now?", and the files left aside. */
export type { CniStatus } from "./network-source.ts";
export type { SkippedFile } from "./config-directory.ts";
/** What ADD made. */
export type { CniResult } from "./result.ts";
/** What is needed of native. */
export type { RunProcess } from "./plugin-run.ts";
export type { WatchDirectory } from "./directory-watch.ts";
