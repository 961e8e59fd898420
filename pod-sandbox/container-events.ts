import { Code, CriError } from "../cri-api/index.ts";
import type { Call, cri, Init } from "../cri-api/index.ts";
import type { Clock } from "./clock.ts";
import type { Container } from "./container.ts";
import type { Host } from "./host.ts";
import { podContainerStatuses } from "./pod-containers.ts";
import type { Records } from "./pod-containers.ts";
import { toCriSandboxStatus } from "./sandbox-status.ts";
import type { Sandbox } from "./sandbox.ts";

type Event = Init<cri.ContainerEventResponse>;
type EventType = cri.ContainerEventType;
type Steps<State extends string> = Readonly<Record<State, { readonly [To in State | "gone"]?: readonly EventType[] }>>;

/** Every change of pods and containers, told to whoever listens. */
export interface ContainerEvents {
  /**
   * Events from now on, until the signal aborts. Each subscriber has a queue of its own and slows nobody down.
   *
   * @throws {CriError} `DataLoss` from the iteration, after the last event before the gap, when the queue was full.
   */
  subscribe(signal: AbortSignal): AsyncIterable<Event>;
}

/** What kubelet hears of each step of a container; one that is in creation is not there yet. */
const containerSteps: Steps<Container["state"]> = {
  creating: { created: ["CONTAINER_CREATED_EVENT"] },
  created: {
    running: ["CONTAINER_STARTED_EVENT"],
    exited: ["CONTAINER_STOPPED_EVENT"],
    gone: ["CONTAINER_DELETED_EVENT"],
  },
  running: {
    exited: ["CONTAINER_STOPPED_EVENT"],
    gone: ["CONTAINER_STOPPED_EVENT", "CONTAINER_DELETED_EVENT"],
  },
  exited: { gone: ["CONTAINER_DELETED_EVENT"] },
};

/** A sandbox is told of like a container that has its id. */
const sandboxSteps: Steps<Sandbox["state"]> = {
  creating: {
    ready: ["CONTAINER_CREATED_EVENT", "CONTAINER_STARTED_EVENT"],
    "not-ready": ["CONTAINER_CREATED_EVENT", "CONTAINER_STOPPED_EVENT"],
  },
  ready: { "not-ready": ["CONTAINER_STOPPED_EVENT"] },
  "not-ready": { gone: ["CONTAINER_DELETED_EVENT"] },
  stopped: { gone: ["CONTAINER_DELETED_EVENT"] },
};

/** As much as a busy node does in some ten seconds. */
const queueLimit = 1000;

/** Makes events of the changes of both stores, which is the order in which List shows them. */
export function createContainerEvents(parts: {
  readonly records: Records;
  readonly clock: Clock;
  readonly limit?: number;
}): ContainerEvents {
  const { records, clock } = parts;
  const subscribers = new Set<Subscriber>();

  function emit(containerId: string, types: readonly EventType[], sandbox: Sandbox | undefined): void {
    if (subscribers.size === 0) return;
    for (const containerEventType of types) {
      const event = {
        containerId,
        containerEventType,
        createdAt: clock(),
        podSandboxStatus: sandbox ? toCriSandboxStatus(sandbox) : null,
        containersStatuses: sandbox ? podContainerStatuses(sandbox, records) : [],
      };
      for (const subscriber of subscribers) if (!subscriber.push(event)) subscribers.delete(subscriber);
    }
  }

  records.containers.onChange((before, after) => {
    const container = after ?? before;
    if (!container) return;
    const types = containerSteps[before?.state ?? "creating"][after?.state ?? "gone"] ?? [];
    emit(container.id, types, records.sandboxes.get(container.sandboxId));
  });
  records.sandboxes.onChange((before, after) => {
    const sandbox = after ?? before;
    if (!sandbox) return;
    emit(sandbox.id, sandboxSteps[before?.state ?? "creating"][after?.state ?? "gone"] ?? [], sandbox);
  });

  return {
    subscribe(signal) {
      const subscriber = createSubscriber(parts.limit ?? queueLimit);
      const leave = (): void => {
        subscribers.delete(subscriber);
        subscriber.close();
      };
      subscribers.add(subscriber); // at once, not when the first event is asked for
      if (signal.aborted) leave();
      signal.addEventListener("abort", leave, { once: true });
      return subscriber.events;
    },
  };
}

interface Subscriber {
  /** False when it takes no more: nobody listens, or an event was lost, as the iteration will say. */
  push(event: Event): boolean;
  close(): void;
  readonly events: AsyncIterable<Event>;
}

function createSubscriber(limit: number): Subscriber {
  const queue: Event[] = [];
  let state: "open" | "overrun" | "closed" = "open";
  let wake = Promise.withResolvers<void>();

  async function* drain(): AsyncGenerator<Event> {
    try {
      for (;;) {
        const event = queue.shift();
        if (event) {
          yield event;
        } else if (state === "open") {
          await wake.promise;
          wake = Promise.withResolvers();
        } else if (state === "overrun") {
          throw new CriError(Code.DataLoss, `events were lost: the subscriber is more than ${limit} behind; list anew`);
        } else {
          return;
        }
      }
    } finally {
      state = "closed"; // also when whoever iterates stops in between
    }
  }

  return {
    push(event) {
      if (state === "open" && queue.length < limit) queue.push(event);
      else if (state === "open") state = "overrun";
      wake.resolve();
      return state === "open";
    },
    close() {
      queue.length = 0;
      state = "closed";
      wake.resolve();
    },
    events: drain(),
  };
}

/**
 * Streams events until the caller leaves or falls behind. A sandbox's events carry its id in `containerId`; all carry the
 * pod's status, also that of a pod that is going.
 *
 * @throws {CriError} `DataLoss` when the caller read too slowly and events were lost.
 */
export function getContainerEvents(
  call: Call,
  _request: cri.GetEventsRequest,
  host: Host,
): AsyncIterable<Init<cri.ContainerEventResponse>> {
  return host.events.subscribe(call.signal);
}
