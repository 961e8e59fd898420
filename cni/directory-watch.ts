import { stat } from "node:fs/promises";
import { basename, dirname } from "node:path";
import type { Logger } from "../cri-api/index.ts";
import { toOneLine } from "./text.ts";

/** What this room needs of native's `watchDirectory`; `name` is `""` for events of the directory itself. */
export type WatchDirectory = (
  path: string,
  onEvent: (event: { readonly name: string }) => void,
) => AsyncDisposable | Promise<AsyncDisposable>;

export interface DirectoryWatch extends AsyncDisposable {
  /**
   * Watches exactly these directories from now on. For one that does not exist its nearest ancestor is watched, so
   * call this again after every change. Resolves to true if something is watched that was not before.
   */
  follow(paths: readonly string[]): Promise<boolean>;
}

interface Place {
  readonly path: string;
  /** Device and inode: two paths may lead to one directory, and one path to another directory than before. */
  readonly key: string;
  /** The only name that matters there; every name does in a directory that is itself wanted. */
  readonly awaited: string | undefined;
}

interface Watched {
  readonly handle: AsyncDisposable;
  awaited: ReadonlySet<string | undefined>;
  /** Something happened to the directory itself: it may be gone, and its inode number may come back. */
  isStale: boolean;
}

export function createDirectoryWatch(parts: {
  readonly watchDirectory: WatchDirectory;
  readonly onChange: () => void;
  readonly log: Logger;
}): DirectoryWatch {
  const watched = new Map<string, Watched>();

  async function start(key: string, path: string, awaited: ReadonlySet<string | undefined>): Promise<boolean> {
    const onEvent = ({ name }: { readonly name: string }): void => {
      const present = watched.get(key);
      if (present !== undefined && name === "") present.isStale = true;
      const names = present?.awaited ?? awaited;
      if (name === "" || names.has(undefined) || names.has(name)) parts.onChange();
    };
    try {
      watched.set(key, { handle: await parts.watchDirectory(path, onEvent), awaited, isStale: false });
      return true;
    } catch (thrown) {
      const reason = thrown instanceof Error ? toOneLine(thrown.message) : "unknown reason";
      parts.log.warn({ path, reason }, "directory cannot be watched, its changes are noticed late");
      return false;
    }
  }

  async function settle(paths: readonly string[]): Promise<boolean> {
    const places = await Promise.all(paths.map(findPlace));
    const wanted = Map.groupBy(places, ({ key }) => key);
    for (const [key, { handle, isStale }] of watched) {
      if (wanted.has(key) && !isStale) continue;
      watched.delete(key);
      await handle[Symbol.asyncDispose]();
    }
    let isAnyNew = false;
    for (const [key, group] of wanted) {
      const awaited = new Set(group.map((place) => place.awaited));
      const present = watched.get(key);
      if (present !== undefined) present.awaited = awaited;
      else if (await start(key, group[0]?.path ?? "", awaited)) isAnyNew = true;
    }
    return isAnyNew;
  }

  return {
    async follow(paths) {
      // A directory made between the look and the watch on its parent would else be missed.
      let isAnyNew = false;
      for (let round = 0; round < 4 && (await settle(paths)); round += 1) isAnyNew = true;
      return isAnyNew;
    },
    async [Symbol.asyncDispose]() {
      const handles = [...watched.values()].map(({ handle }) => handle);
      watched.clear();
      await Promise.all(handles.map((handle) => handle[Symbol.asyncDispose]()));
    },
  };
}

async function findPlace(wanted: string): Promise<Place> {
  let path = wanted;
  let awaited: string | undefined;
  for (;;) {
    const stats = await stat(path, { bigint: true }).catch(() => undefined);
    const parent = dirname(path);
    if (stats?.isDirectory() || parent === path) return { path, key: `${stats?.dev}:${stats?.ino}`, awaited };
    awaited = basename(path);
    path = parent;
  }
}
