import { once } from "node:events";
import { Client as GrpcClient, credentials } from "@grpc/grpc-js";
import type { ClientDuplexStream, ClientReadableStream } from "@grpc/grpc-js";
import { type Code, CriError, type Init, loadServices } from "../cri-api/index.ts";
import type { MethodDescriptor, MethodName, Methods } from "../cri-api/index.ts";

const maxMessageBytes = 80 * 1024 * 1024;

type Request<Name extends MethodName> = Init<Methods[Name]["request"]>;
type Response<Name extends MethodName> = Methods[Name]["response"];

/** The command line's way to a running daemon. All calls fail with the CriError that the daemon sent. */
export interface Client extends Disposable {
  call<Name extends MethodName>(name: Name, request: Request<Name>): Promise<Response<Name>>;
  stream<Name extends MethodName>(name: Name, request: Request<Name>): AsyncIterable<Response<Name>>;
  /** Streams both ways; requests are taken as fast as the daemon takes them. */
  exchange<Name extends MethodName>(name: Name, requests: AsyncIterable<Request<Name>>): AsyncIterable<Response<Name>>;
}

function toCriError(thrown: unknown): unknown {
  if (!(thrown instanceof Error) || !("code" in thrown) || !("details" in thrown)) return thrown;
  return new CriError(Number(thrown.code) as Code, String(thrown.details), { cause: thrown });
}

async function* answersOf(stream: ClientReadableStream<object>): AsyncGenerator<object, void> {
  try {
    yield* stream as AsyncIterable<object>;
  } catch (thrown) {
    throw toCriError(thrown);
  }
}

async function* exchange(
  stream: ClientDuplexStream<object, object>,
  requests: AsyncIterable<object>,
): AsyncGenerator<object, void> {
  const over = new AbortController();
  const sent = (async () => {
    for await (const request of requests) {
      if (over.signal.aborted) return;
      if (!stream.write(request)) await once(stream, "drain", { signal: over.signal });
    }
    stream.end();
  })();
  sent.catch((thrown: unknown) => {
    if (!over.signal.aborted) stream.destroy(thrown instanceof Error ? thrown : new Error(String(thrown)));
  });
  try {
    yield* answersOf(stream);
  } finally {
    over.abort();
    stream.cancel();
  }
}

/** Connects to the daemon's socket; nothing is sent before the first call. */
export function connectClient(socket: string): Client {
  const methods = new Map<string, MethodDescriptor>(loadServices().map((method) => [method.name, method]));
  const grpc = new GrpcClient(`unix:${socket}`, credentials.createInsecure(), {
    "grpc.default_authority": "localhost",
    "grpc.max_receive_message_length": maxMessageBytes,
    "grpc.max_send_message_length": maxMessageBytes,
  });
  const find = (name: MethodName): MethodDescriptor => {
    const method = methods.get(name);
    if (method === undefined) throw new Error(`no RPC ${name}`);
    return method;
  };
  const encode = (name: MethodName) => (init: object) => find(name).encodeRequest(init);
  const decode = (name: MethodName) => (bytes: Buffer) => find(name).decodeResponse(bytes);
  // Names tie requests to responses in the interface; a look-up by name cannot carry that tie.
  return {
    async call(name, request) {
      const { promise, resolve, reject } = Promise.withResolvers<object>();
      grpc.makeUnaryRequest<object, object>(find(name).path, encode(name), decode(name), request, (error, response) =>
        error || response === undefined ? reject(toCriError(error)) : resolve(response),
      );
      return (await promise) as Response<typeof name>;
    },
    stream(name, request) {
      const stream = grpc.makeServerStreamRequest<object, object>(find(name).path, encode(name), decode(name), request);
      return answersOf(stream) as AsyncIterable<Response<typeof name>>;
    },
    exchange(name, requests) {
      const stream = grpc.makeBidiStreamRequest<object, object>(find(name).path, encode(name), decode(name));
      return exchange(stream, requests) as AsyncIterable<Response<typeof name>>;
    },
    [Symbol.dispose]: () => grpc.close(),
  };
}
