import type { Logger } from "../../cri-api/index.ts";
import type { ImageHost } from "../host.ts";
import { FileIssue } from "./file-issue.ts";

export interface ReadFile {
  readonly path: string;
  readonly text: string;
}

/** Something that is made of files, and made anew when they change. A broken edit leaves the last good one in force. */
export interface Reloading<T> {
  /** Reads the files; what they say is `value` from then on. */
  look(): Promise<void>;
  /** Undefined until the files have been good once. */
  value(): T | undefined;
  /** What is wrong with the files as they are now. */
  problem(): string | undefined;
}

export interface ReloadingParts<T> {
  readonly host: Pick<ImageHost, "readFileBounded">;
  readonly log: Logger;
  /** The files to read, in order; those that are absent count for nothing. */
  readonly paths: () => Promise<readonly string[]>;
  readonly parse: (files: readonly ReadFile[]) => T;
}

const maxFileBytes = 1 << 20;

/** Runs `parse` on one file, whose path then stands before whatever is wrong with it. */
export function parseFile<T>(file: ReadFile, parse: (text: string) => T): T {
  try {
    return parse(file.text);
  } catch (thrown) {
    if (!(thrown instanceof FileIssue)) throw thrown;
    throw new FileIssue(`${file.path}: ${thrown.message}`, { cause: thrown });
  }
}

async function readAll<T>({ host, paths }: ReloadingParts<T>): Promise<readonly ReadFile[]> {
  const files = (await paths()).map(async (path) => {
    try {
      const bytes = await host.readFileBounded(path, maxFileBytes);
      return bytes === undefined ? [] : [{ path, text: bytes.toString("utf8") }];
    } catch (thrown) {
      throw new FileIssue(`${path}: cannot be read: ${reasonOf(thrown)}`, { cause: thrown });
    }
  });
  return (await Promise.all(files)).flat();
}

/** The errno of a failed read, which says what its text would, without the path. */
export function reasonOf(thrown: unknown): string {
  if (thrown instanceof Error && "code" in thrown && typeof thrown.code === "string") return thrown.code;
  return thrown instanceof Error ? thrown.message : String(thrown);
}

function isSame(left: readonly ReadFile[], right: readonly ReadFile[]): boolean {
  return (
    left.length === right.length &&
    left.every(({ path, text }, at) => right[at]?.path === path && right[at]?.text === text)
  );
}

export function createReloading<T>(parts: ReloadingParts<T>): Reloading<T> {
  let seen: readonly ReadFile[] | undefined;
  let value: T | undefined;
  let problem: string | undefined;

  function report(issue: string): void {
    if (issue !== problem)
      parts.log.error({ issue }, "a registry file cannot be used; what it said before stays in force");
    problem = issue;
  }
  return {
    async look() {
      try {
        const files = await readAll(parts);
        if (seen !== undefined && isSame(files, seen)) return;
        value = parts.parse(files);
        seen = files;
        if (problem !== undefined) parts.log.info({}, "the registry files can be used again");
        problem = undefined;
      } catch (thrown) {
        if (!(thrown instanceof FileIssue)) throw thrown;
        seen = undefined;
        report(thrown.message);
      }
    },
    value: () => value,
    problem: () => problem,
  };
}
