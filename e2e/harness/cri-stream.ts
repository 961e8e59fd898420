import { Client, credentials } from "@grpc/grpc-js";
import type { ClientReadableStream } from "@grpc/grpc-js";
import { loadServices } from "../../cri-api/index.ts";
import type { Init, MethodDescriptor, MethodName, Methods } from "../../cri-api/index.ts";

/** A server-streaming call of a client of its own, so that pausing it slows nobody else. */
export interface OpenStream<Message> extends Disposable {
  readonly stream: ClientReadableStream<Message>;
  /** Settles when the server has answered that the stream stands. */
  readonly isOpen: Promise<void>;
}

/** Opens a stream on a CRI socket; errors come out of `stream`. */
export function openStream<Name extends MethodName>(
  socketPath: string,
  name: Name,
  request?: Init<Methods[Name]["request"]>,
): OpenStream<Methods[Name]["response"]> {
  const methods = new Map<string, MethodDescriptor>(loadServices().map((method) => [method.name, method]));
  const method = methods.get(name);
  if (method === undefined) throw new Error(`no such RPC: ${name}`);
  const client = new Client(`unix:${socketPath}`, credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
  });
  const stream = client.makeServerStreamRequest<object, Methods[Name]["response"]>(
    method.path,
    (message) => method.encodeRequest(message),
    (bytes) => method.decodeResponse(bytes),
    request ?? {},
  );
  const { promise: isOpen, resolve } = Promise.withResolvers<void>();
  stream.once("metadata", () => resolve());
  return {
    stream,
    isOpen,
    [Symbol.dispose](): void {
      stream.on("error", () => undefined); // being cancelled is one
      stream.cancel();
      client.close();
    },
  };
}

/** All messages of a stream that ends by itself. @throws the error it ended with. */
export async function readToEnd<Message>(open: OpenStream<Message>): Promise<readonly Message[]> {
  const messages: Message[] = [];
  for await (const message of open.stream) messages.push(message as Message);
  return messages;
}
