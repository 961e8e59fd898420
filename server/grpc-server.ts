import { once } from "node:events";
import { Metadata, Server } from "@grpc/grpc-js";
import type {
  handleBidiStreamingCall,
  handleServerStreamingCall,
  handleUnaryCall,
  ServerDuplexStream,
  ServerWritableStream,
} from "@grpc/grpc-js";
import { Code, CriError } from "../cri-api/index.ts";
import type { Call, Init, MethodDescriptor, MethodName, Methods } from "../cri-api/index.ts";
import type { Calls } from "./calls.ts";
import type { DuplexHandler, HandlerTable, StreamHandler, UnaryHandler } from "./handlers.ts";

/** No request comes near this; a message is held whole in memory before it is decoded. */
const maxRequestBytes = 32 * 1024 * 1024;
/** As CRI-O: two full ExecSync streams and a long list must fit; kubelet itself takes 16 MiB. */
const maxResponseBytes = 80 * 1024 * 1024;

// Descriptors decode and encode inside the wrapper, so that a bad request is InvalidArgument, not grpc-js' Internal.
const keepBytes = (bytes: Buffer): Buffer => bytes;

function refuse(method: MethodDescriptor): never {
  throw new CriError(Code.Unimplemented, `${method.service}.${method.name} is not implemented`);
}

function serveUnary(
  method: MethodDescriptor,
  handler: UnaryHandler<MethodName> | undefined,
  calls: Calls,
): handleUnaryCall<Buffer, Buffer> {
  return (surface, answer) => {
    let response: Buffer | undefined;
    const done = calls.run(method, surface, async (call) => {
      if (!handler) refuse(method);
      response = method.encodeResponse(await handler(call, method.decodeRequest(surface.request)));
    });
    void done.then((status) => (status.code === Code.Ok ? answer(null, response ?? null) : answer(status)));
  };
}

type Writable = ServerWritableStream<Buffer, Buffer> | ServerDuplexStream<Buffer, Buffer>;

/** After a cancel grpc-js never calls a write back, hence the signal. */
async function writeTo(stream: Writable, bytes: Buffer, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  if (!stream.write(bytes)) await once(stream, "drain", { signal });
}

/** Streams what `open` gives; the call is told as it ends. */
function answerStream(
  method: MethodDescriptor,
  stream: Writable,
  calls: Calls,
  open: (call: Call) => AsyncIterable<Init<Methods[MethodName]["response"]>>,
): void {
  const done = calls.run(method, stream, async (call) => {
    const items = open(call);
    stream.sendMetadata(new Metadata()); // a subscriber learns that from now on it misses nothing
    for await (const item of items) {
      await writeTo(stream, method.encodeResponse(item), call.signal);
    }
    call.signal.throwIfAborted(); // a stream that ended because of the abort did not end well
  });
  void done.then((status) => (status.code === Code.Ok ? stream.end() : stream.emit("error", status)));
}

function serveStream(
  method: MethodDescriptor,
  handler: StreamHandler<MethodName> | undefined,
  calls: Calls,
): handleServerStreamingCall<Buffer, Buffer> {
  return (stream) => {
    answerStream(method, stream, calls, (call) => {
      if (!handler) refuse(method);
      return handler(call, method.decodeRequest(stream.request));
    });
  };
}

/** The client's messages; one that goes away ends them with the call's reason, never as if it were done. */
async function* requestsOf(
  method: MethodDescriptor,
  stream: ServerDuplexStream<Buffer, Buffer>,
  signal: AbortSignal,
): AsyncGenerator<Methods[MethodName]["request"], void> {
  const pieces = stream.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>;
  for await (const bytes of pieces) {
    signal.throwIfAborted();
    yield method.decodeRequest(bytes);
  }
  signal.throwIfAborted();
}

function serveDuplex(
  method: MethodDescriptor,
  handler: DuplexHandler<MethodName> | undefined,
  calls: Calls,
): handleBidiStreamingCall<Buffer, Buffer> {
  return (stream) => {
    answerStream(method, stream, calls, (call) => {
      if (!handler) refuse(method);
      return handler(call, requestsOf(method, stream, call.signal));
    });
  };
}

/** A gRPC server with every RPC of all services, not yet listening. */
export function createGrpcServer(methods: readonly MethodDescriptor[], table: HandlerTable, calls: Calls): Server {
  const server = new Server({
    "grpc.max_receive_message_length": maxRequestBytes,
    "grpc.max_send_message_length": maxResponseBytes,
    "grpc.enable_channelz": 0,
  });
  for (const method of methods) {
    const entry = table[method.name];
    const handler = entry === "unimplemented" ? undefined : entry;
    // The table's type ties each name to its handler's; a loop over names cannot carry that tie.
    if (method.requestStream) {
      const duplex = serveDuplex(method, handler as DuplexHandler<MethodName> | undefined, calls);
      server.register(method.path, duplex, keepBytes, keepBytes, "bidi");
    } else if (method.responseStream) {
      const stream = serveStream(method, handler as StreamHandler<MethodName> | undefined, calls);
      server.register(method.path, stream, keepBytes, keepBytes, "serverStream");
    } else {
      const unary = serveUnary(method, handler as UnaryHandler<MethodName> | undefined, calls);
      server.register(method.path, unary, keepBytes, keepBytes, "unary");
    }
  }
  return server;
}
