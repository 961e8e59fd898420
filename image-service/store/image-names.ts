import type { ImageName, ImageRecord } from "./image-record.ts";

/** The name without its tag: what is left when the tag moves to another image. */
export function untag({ repository, digest, pulledAtMs }: ImageName): ImageName {
  return { repository, digest, pulledAtMs };
}

function isSameTag(left: ImageName, right: ImageName): boolean {
  return left.tag !== undefined && left.tag === right.tag && left.repository === right.repository;
}

/** The names with one more; what its tag stood for before really existed, and stays without the tag. */
export function mergeName(names: readonly ImageName[], name: ImageName): readonly ImageName[] {
  const isReplaced = (other: ImageName): boolean =>
    other.repository === name.repository &&
    other.digest === name.digest &&
    (other.tag === undefined || other.tag === name.tag);
  return [...removeTag(names, name).filter((other) => !isReplaced(other)), name];
}

/** The names after `taken`'s tag has gone to another image. */
export function removeTag(names: readonly ImageName[], taken: ImageName): readonly ImageName[] {
  return names.map((name) => (isSameTag(name, taken) ? untag(name) : name));
}

/** Records as they must be read: a tag that several claim (a crash between two writes) belongs to the latest pull. */
export function settleTags(records: readonly ImageRecord[]): readonly ImageRecord[] {
  const newest = new Map<string, number>();
  const keyOf = ({ repository, tag }: ImageName): string => `${repository}:${tag}`;
  for (const name of records.flatMap(({ names }) => names))
    newest.set(keyOf(name), Math.max(newest.get(keyOf(name)) ?? 0, name.pulledAtMs));
  return records.map((record) => ({
    ...record,
    names: record.names.map((name) => (newest.get(keyOf(name)) === name.pulledAtMs ? name : untag(name))),
  }));
}
