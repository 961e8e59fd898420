import type { ImageAdminMethods } from "./berth-messages.ts";
import type { Init } from "./init.ts";
import type { ImageServiceMethods, RuntimeServiceMethods } from "./messages.ts";
import protobuf from "protobufjs";
import { CriError, Code } from "./errors.ts";
import { loadSchema, servicesOf } from "./schema.ts";
import { createVisitor, type Visitor } from "./visit.ts";

/** Every RPC by name; a name occurs in one service only. */
export type Methods = RuntimeServiceMethods & ImageServiceMethods & ImageAdminMethods;
export type MethodName = keyof Methods;
export type ServiceName = "RuntimeService" | "ImageService" | "ImageAdmin";

/** One RPC: where it is reached, and its two messages there and back. */
export interface MethodDescriptor<Name extends MethodName = MethodName> {
  readonly service: ServiceName;
  readonly name: Name;
  /** The HTTP/2 path, such as `/runtime.v1.RuntimeService/Version`. */
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
  /** @throws {CriError} `InvalidArgument` for bytes that are no such message, text that is not UTF-8, an unknown enum number. */
  decodeRequest(bytes: Uint8Array): Methods[Name]["request"];
  encodeRequest(init: Init<Methods[Name]["request"]>): Buffer;
  /** @throws {CriError} as decodeRequest. */
  decodeResponse(bytes: Uint8Array): Methods[Name]["response"];
  encodeResponse(init: Init<Methods[Name]["response"]>): Buffer;
}

/** One message type's way to the wire and back. */
export interface Codec {
  decode(bytes: Uint8Array): object;
  /** Of a message that is one list and nothing else, elements that are all frozen are encoded once as long as they live. */
  encode(init: object): Buffer;
}

export const toPlain = { longs: BigInt, enums: String, defaults: true, arrays: true, objects: true } as const;

type FrozenList = readonly object[];

function isFrozenList(value: unknown): value is FrozenList {
  return Array.isArray(value) && value.every((element) => Object(element) === element && Object.isFrozen(element));
}

/** The one field of a list response. */
function soleListOf(type: protobuf.Type): string | undefined {
  const [field, ...others] = type.fieldsArray;
  return field?.repeated && field.resolve().resolvedType instanceof protobuf.Type && others.length === 0
    ? field.name
    : undefined;
}

/**
 * A list's bytes are those of its elements, each as a list of one: what never changes need not be encoded again for a
 * client that asks every second.
 */
function createListEncoder(list: string, encode: Codec["encode"]): Codec["encode"] {
  const known = new WeakMap<object, Buffer>();
  const encodeOnce = (element: object): Buffer => {
    const bytes = known.get(element) ?? encode({ [list]: [element] });
    known.set(element, bytes);
    return bytes;
  };
  return (init) => {
    const elements: unknown = Reflect.get(init, list);
    return isFrozenList(elements) ? Buffer.concat(elements.map(encodeOnce)) : encode(init);
  };
}

function createEncoder(type: protobuf.Type, visitor: Visitor): Codec["encode"] {
  const encode: Codec["encode"] = (init) => {
    // Encoding a plain object would write 0 for every bigint: fromObject makes them 64-bit words first.
    const message = type.fromObject(init);
    visitor.makeTextWellFormed(type, message);
    const bytes = type.encode(message).finish();
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  };
  const list = soleListOf(type);
  return list === undefined ? encode : createListEncoder(list, encode);
}

export function createCodec(type: protobuf.Type, visitor: Visitor): Codec {
  return {
    encode: createEncoder(type, visitor),
    decode(bytes) {
      try {
        // A Buffer in gives Buffers out, over the same memory.
        const message = type.decode(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
        visitor.refuseUnknownEnums(type, message);
        return type.toObject(message, toPlain);
      } catch (thrown) {
        const reason = thrown instanceof Error ? thrown.message : String(thrown);
        throw new CriError(Code.InvalidArgument, `cannot decode ${type.name}: ${reason}`, { cause: thrown });
      }
    },
  };
}

function isServiceName(name: string): name is ServiceName {
  return name === "RuntimeService" || name === "ImageService" || name === "ImageAdmin";
}

function describeMethod(method: protobuf.Method, codecOf: (type: protobuf.Type) => Codec): MethodDescriptor {
  method.resolve();
  const { parent, resolvedRequestType, resolvedResponseType } = method;
  if (!parent || !isServiceName(parent.name) || !resolvedRequestType || !resolvedResponseType) {
    throw new Error(`unexpected method ${method.fullName}`);
  }
  const request = codecOf(resolvedRequestType);
  const response = codecOf(resolvedResponseType);
  return {
    service: parent.name,
    name: method.name as MethodName,
    path: `/${parent.fullName.slice(1)}/${method.name}`,
    requestStream: method.requestStream === true,
    responseStream: method.responseStream === true,
    decodeRequest: (bytes) => request.decode(bytes) as Methods[MethodName]["request"],
    encodeRequest: (init) => request.encode(init),
    decodeResponse: (bytes) => response.decode(bytes) as Methods[MethodName]["response"],
    encodeResponse: (init) => response.encode(init),
  };
}

/**
 * Every RPC of the CRI's services and of our own, in the order of the contracts. The first call in a thread reads and
 * compiles them: at start-up.
 *
 * @see https://github.com/kubernetes/cri-api/blob/v0.37.0/pkg/apis/runtime/v1/api.proto
 */
export function loadServices(): readonly MethodDescriptor[] {
  const visitor = createVisitor();
  const codecs = new Map<protobuf.Type, Codec>();
  const codecOf = (type: protobuf.Type): Codec => {
    const codec = codecs.get(type) ?? createCodec(type, visitor);
    codecs.set(type, codec);
    return codec;
  };
  const services = (["runtime.v1", "berth.v1"] as const).flatMap((name) => servicesOf(loadSchema(name)));
  return services.flatMap((service) => service.methodsArray.map((method) => describeMethod(method, codecOf)));
}
