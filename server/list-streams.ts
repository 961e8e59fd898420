import { setImmediate } from "node:timers/promises";
import type { Call, Init, MethodName, Methods } from "../cri-api/index.ts";
import type { StreamHandler } from "./handlers.ts";

/** As CRI-O: far below the 16 MiB that kubelet takes in one message, with annotations of the usual size. */
const itemsPerMessage = 3000;

/**
 * The streamed twin of a list: the same items, by the same rules, a few thousand a message; none when there are none. One
 * client's long list does not keep the others waiting: between two messages their calls have their turn.
 *
 * @see https://github.com/kubernetes/enhancements/issues/5825
 */
export function streamList<Name extends MethodName, Item>(
  list: (call: Call, request: Methods[Name]["request"]) => Promise<readonly Item[]>,
  wrap: (items: readonly Item[]) => Init<Methods[Name]["response"]>,
): StreamHandler<Name> {
  return async function* stream(call, request) {
    const items = await list(call, request);
    for (let start = 0; start < items.length; start += itemsPerMessage) {
      if (start > 0) await setImmediate();
      yield wrap(items.slice(start, start + itemsPerMessage));
    }
  };
}
