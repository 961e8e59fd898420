import type {
  bindMount,
  makeFolders,
  measureTree,
  mountOverlay,
  readFileBounded,
  releaseMemory,
  removeTree,
  resolveInRoot,
  run,
  spreadFolders,
  unmount,
  which,
  writeFileAtomically,
} from "../native/index.ts";

/** What the image service needs of the machine; `native` has all of it. */
export interface ImageHost {
  readonly bindMount: typeof bindMount;
  readonly makeFolders: typeof makeFolders;
  readonly measureTree: typeof measureTree;
  readonly mountOverlay: typeof mountOverlay;
  readonly unmount: typeof unmount;
  readonly releaseMemory: typeof releaseMemory;
  readonly removeTree: typeof removeTree;
  readonly resolveInRoot: typeof resolveInRoot;
  readonly writeFileAtomically: typeof writeFileAtomically;
  readonly readFileBounded: typeof readFileBounded;
  readonly run: typeof run;
  readonly spreadFolders: typeof spreadFolders;
  readonly which: typeof which;
}
