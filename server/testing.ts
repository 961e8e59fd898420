import { mkdtemp, rm } from "node:fs/promises";
import { connect } from "node:http2";
import type { ClientHttp2Stream } from "node:http2";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client, credentials } from "@grpc/grpc-js";
import type { CallOptions, ClientReadableStream, ClientUnaryCall } from "@grpc/grpc-js";
import { loadServices } from "../cri-api/index.ts";
import type { Init, Logger, MethodDescriptor, MethodName, Methods } from "../cri-api/index.ts";
import type { HandlerTable } from "./handlers.ts";

const maxMessageBytes = 80 * 1024 * 1024;

/** One call that a test may cancel. */
export interface PendingCall<Response> {
  readonly call: ClientUnaryCall;
  readonly response: Promise<Response>;
}

/** A client of the CRI on a unix socket, typed by the name of the RPC. Errors carry `code` and `details`. */
export interface TestClient extends Disposable {
  start<Name extends MethodName>(
    name: Name,
    request: Init<Methods[Name]["request"]>,
    options?: CallOptions,
  ): PendingCall<Methods[Name]["response"]>;
  unary<Name extends MethodName>(
    name: Name,
    request: Init<Methods[Name]["request"]>,
    options?: CallOptions,
  ): Promise<Methods[Name]["response"]>;
  stream<Name extends MethodName>(
    name: Name,
    request: Init<Methods[Name]["request"]>,
  ): ClientReadableStream<Methods[Name]["response"]>;
}

export function createTestClient(socket: string): TestClient {
  const methods = new Map<string, unknown>(loadServices().map((method) => [method.name, method]));
  const client = new Client(`unix:${socket}`, credentials.createInsecure(), {
    "grpc.default_authority": "localhost",
    "grpc.max_receive_message_length": maxMessageBytes,
    "grpc.max_send_message_length": maxMessageBytes,
  });
  const find = <Name extends MethodName>(name: Name): MethodDescriptor<Name> =>
    methods.get(name) as MethodDescriptor<Name>;

  const start: TestClient["start"] = (name, request, options = {}) => {
    const method = find(name);
    const { promise, resolve, reject } = Promise.withResolvers<Methods[typeof name]["response"]>();
    const call = client.makeUnaryRequest(
      method.path,
      (init: Init<Methods[typeof name]["request"]>) => method.encodeRequest(init),
      (bytes: Buffer) => method.decodeResponse(bytes),
      request,
      options,
      (error, response) =>
        error || response === undefined ? reject(error ?? new Error("no response")) : resolve(response),
    );
    return { call, response: promise };
  };

  return {
    start,
    unary: (name, request, options) => start(name, request, options).response,
    stream(name, request) {
      const method = find(name);
      return client.makeServerStreamRequest(
        method.path,
        (init: Init<Methods[typeof name]["request"]>) => method.encodeRequest(init),
        (bytes: Buffer) => method.decodeResponse(bytes),
        request,
      );
    },
    [Symbol.dispose]: () => client.close(),
  };
}

export function methodPath(name: MethodName): string {
  const method = loadServices().find((candidate) => candidate.name === name);
  if (!method) throw new Error(`no RPC ${name}`);
  return method.path;
}

/** A bare HTTP/2 request with an empty message, for what a gRPC client would not do. Nothing is read before `resume`. */
export function openRawCall(
  socket: string,
  name: MethodName,
  headers: Readonly<Record<string, string>> = {},
): { readonly stream: ClientHttp2Stream; readonly breakConnection: () => void } {
  const session = connect("http://localhost", { createConnection: () => createConnection(socket) });
  session.on("error", () => undefined);
  const required = { ":method": "POST", ":path": methodPath(name), "content-type": "application/grpc", te: "trailers" };
  const stream = session.request({ ...required, ...headers });
  stream.on("error", () => undefined);
  stream.end(Buffer.alloc(5));
  return { stream, breakConnection: () => session.destroy() };
}

/** A table whose RPCs are all unimplemented but the given ones. */
export function tableWith(some: Partial<HandlerTable>): HandlerTable {
  const none = Object.fromEntries(loadServices().map((method) => [method.name, "unimplemented"]));
  return { ...none, ...some } as HandlerTable;
}

/** One line a LogBook kept. */
export interface LogLine {
  readonly level: string;
  readonly text: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

/** A logger that keeps its lines. */
export function createLogBook(): { readonly log: Logger; readonly lines: LogLine[] } {
  const lines: LogLine[] = [];
  const createLog = (context: object): Logger => {
    const keep =
      (level: string) =>
      (fields: object, text: string): void =>
        void lines.push({ level, text, fields: { ...context, ...fields } });
    return {
      debug: keep("debug"),
      info: keep("info"),
      warn: keep("warn"),
      error: keep("error"),
      child: (fields) => createLog({ ...context, ...fields }),
    };
  };
  return { log: createLog({}), lines };
}

/** A directory that goes with its scope. */
export async function makeScratch(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), "berth-server-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}
