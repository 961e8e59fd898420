import { Client, credentials, type ServiceError, status } from "@grpc/grpc-js";
import {
  CriError,
  type Init,
  loadServices,
  type MethodDescriptor,
  type MethodName,
  type Methods,
} from "../../cri-api/index.ts";

interface CallOptions {
  /** The gRPC deadline; 0 means none. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** A CRI client on one socket, with every RPC of the contract typed. */
export interface CriClient extends Disposable {
  /** @throws {CriError} with the status the server sent. */
  call<Name extends MethodName>(
    name: Name,
    request?: Init<Methods[Name]["request"]>,
    options?: CallOptions,
  ): Promise<Methods[Name]["response"]>;
  /** Ids of every pod and container this client was told of; the leak check looks for them by name. */
  readonly seenIds: ReadonlySet<string>;
}

const messageLimit = 64 * 1024 * 1024;

/**
 * Connects to a CRI socket. Nothing is sent before the first call.
 *
 * @param usualTimeoutMs The deadline of calls that name none.
 */
export function connectClient(socketPath: string, usualTimeoutMs = 60_000): CriClient {
  const methods = new Map<string, MethodDescriptor>(loadServices().map((method) => [method.name, method]));
  const seenIds = new Set<string>();
  const grpc = new Client(`unix:${socketPath}`, credentials.createInsecure(), {
    "grpc.max_receive_message_length": messageLimit,
    "grpc.max_send_message_length": messageLimit,
    "grpc.initial_reconnect_backoff_ms": 20,
    "grpc.max_reconnect_backoff_ms": 100,
    "grpc.use_local_subchannel_pool": 1,
  });
  return {
    seenIds,
    async call(name, request, options = {}) {
      const method = methods.get(name);
      if (method === undefined) throw new Error(`no such RPC: ${name}`);
      const response = await callUnary(grpc, method, request ?? {}, { timeoutMs: usualTimeoutMs, ...options });
      rememberIds(seenIds, response);
      return response as Methods[typeof name]["response"];
    },
    [Symbol.dispose](): void {
      grpc.close();
    },
  };
}

function callUnary(
  grpc: Client,
  method: MethodDescriptor,
  request: object,
  { timeoutMs, signal }: CallOptions & { readonly timeoutMs: number },
): Promise<object> {
  return new Promise((resolve, reject) => {
    const call = grpc.makeUnaryRequest<object, object>(
      method.path,
      (message) => method.encodeRequest(message),
      (bytes) => method.decodeResponse(bytes),
      request,
      timeoutMs === 0 ? {} : { deadline: Date.now() + timeoutMs },
      (error, response) => {
        if (error !== null) reject(toCallError(method.name, error));
        else resolve(response ?? {});
      },
    );
    signal?.addEventListener("abort", () => call.cancel(), { once: true });
  });
}

function toCallError(name: string, error: ServiceError): Error {
  if (error.code === status.OK) return error;
  return new CriError(error.code, error.details, { cause: name });
}

function rememberIds(seenIds: Set<string>, response: object): void {
  for (const field of ["podSandboxId", "containerId"] as const) {
    const id: unknown = (response as Record<string, unknown>)[field];
    if (typeof id === "string" && id !== "") seenIds.add(id);
  }
}
