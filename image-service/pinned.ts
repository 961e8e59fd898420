import { formatReference, parseImageReference } from "./reference.ts";
import { type ImageName, repoDigestsOf, repoTagsOf } from "./store/image-record.ts";

/** Whether an image is to be kept by kubelet's garbage collection, by any of its names. */
export type IsPinned = (names: readonly ImageName[]) => boolean;

function literal(text: string): string {
  return text.replaceAll(/[^\w/]/g, String.raw`\$&`);
}

function toExpression(pattern: string): RegExp {
  const whole = pattern.includes("*") ? pattern : formatReference(parseImageReference(pattern));
  return new RegExp(`^${whole.split("*").map(literal).join(".*")}$`, "i");
}

/**
 * Patterns are names in any spelling (`busybox`, `registry.k8s.io/pause:3.10`), or full names with `*` for any text:
 * `registry.k8s.io/pause:*`, `*etcd*`. The case of letters does not matter.
 *
 * @throws {CriError} `InvalidArgument` for a name without `*` that is malformed.
 */
export function createPinning(patterns: readonly string[]): IsPinned {
  const expressions = patterns.map(toExpression);
  return (names) =>
    [...repoTagsOf(names), ...repoDigestsOf(names)].some((name) => expressions.some((each) => each.test(name)));
}
