import { encodeName } from "../../native/index.ts";
import { LayerError } from "./layer-error.ts";

/** Where an archive member goes: components below the layer's root, none of them `.`, `..` or empty. */
export interface EntryPath {
  /** Folder, `""` for the root. */
  readonly folder: string;
  /** Last component, `""` for the root itself. */
  readonly base: string;
}

const maxComponentBytes = 255;
/** PATH_MAX: the kernel takes no longer one. */
export const maxPathBytes = 4096;

/**
 * Splits a name of the archive. A leading slash counts from the layer's root, as every image tool has it; `..` is
 * refused even where it would stay inside.
 */
export function parseEntryPath(name: string, maxDepth: number): EntryPath {
  if (name.includes("\0")) throw new LayerError("a name in the layer contains NUL");
  if (name.length > maxPathBytes)
    throw new LayerError(`the layer has a path longer than ${maxPathBytes} bytes: ${describeName(name)}`);
  const components = name.split("/").filter((component) => component !== "" && component !== ".");
  if (components.includes("..")) throw new LayerError(`the layer names a path with "..": ${describeName(name)}`);
  if (components.length > maxDepth)
    throw new LayerError(`the layer has a path deeper than ${maxDepth} folders: ${describeName(name)}`);
  for (const component of components)
    if (component.length > maxComponentBytes / 4 && encodeName(component).length > maxComponentBytes)
      throw new LayerError(`the layer has a name longer than ${maxComponentBytes} bytes: ${describeName(name)}`);
  return { folder: components.slice(0, -1).join("/"), base: components.at(-1) ?? "" };
}

/** The same in one piece: what all spellings of a path in the archive have in common. */
export function fullPath(name: string, { pathDepth }: { readonly pathDepth: number }): string {
  const { folder, base } = parseEntryPath(name, pathDepth);
  return joinPath(folder, base);
}

/** A name from the archive as an error may show it. */
export function describeName(name: string): string {
  return JSON.stringify(name.length > 128 ? `${name.slice(0, 128)}…` : name);
}

export function joinPath(folder: string, base: string): string {
  return folder === "" ? base : `${folder}/${base}`;
}
