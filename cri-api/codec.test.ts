import protobuf from "protobufjs";
import { describe, expect, test } from "vitest";
import { createCodec, loadServices } from "./codec.ts";
import { Code, CriError } from "./errors.ts";
import { messagesOf, readSchema } from "./schema.ts";
import { createRandom, methodNamed } from "./testing.ts";
import { createVisitor } from "./visit.ts";

function codeOf(work: () => unknown): Code | undefined {
  try {
    work();
    return undefined;
  } catch (thrown) {
    if (thrown instanceof CriError) return thrown.code;
    throw thrown;
  }
}

/** A field by hand: tag, then a length-delimited payload. */
function lengthDelimited(number: number, payload: Uint8Array): Buffer {
  const writer = protobuf.Writer.create();
  writer.uint32((number << 3) | 2).bytes(payload);
  return Buffer.from(writer.finish());
}

function varint(number: number, value: number): Buffer {
  return Buffer.from(
    protobuf.Writer.create()
      .uint32(number << 3)
      .int32(value)
      .finish(),
  );
}

describe("64-bit integers", () => {
  const beyondDouble = 2n ** 53n + 1n;

  test.each([beyondDouble, -beyondDouble, 2n ** 63n - 1n, -(2n ** 63n), 0n, 1n, -1n])(
    "int64 %d there and back",
    (value) => {
      const method = methodNamed("UpdateContainerResources");
      const bytes = method.encodeRequest({ linux: { memoryLimitInBytes: value } });
      expect(method.decodeRequest(bytes).linux?.memoryLimitInBytes).toBe(value);
    },
  );

  test.each([beyondDouble, 2n ** 64n - 1n, 2n ** 63n, 0n])("uint64 %d there and back", (value) => {
    const method = methodNamed("ImageFsInfo");
    const bytes = method.encodeResponse({ imageFilesystems: [{ usedBytes: { value } }] });
    expect(method.decodeResponse(bytes).imageFilesystems[0]?.usedBytes).toEqual({ value });
  });

  test("the bytes are those of the protobuf specification", () => {
    const method = methodNamed("ContainerStats");
    const bytes = method.encodeResponse({ stats: { cpu: { timestamp: -1n } } });
    expect(bytes.toString("hex")).toBe("0a0d120b08ffffffffffffffffff01");
  });

  test("a repeated int64 there and back", () => {
    const method = methodNamed("RunPodSandbox");
    const supplementalGroups = [beyondDouble, -beyondDouble, 0n];
    const bytes = method.encodeRequest({ config: { linux: { securityContext: { supplementalGroups } } } });
    expect(method.decodeRequest(bytes).config?.linux?.securityContext?.supplementalGroups).toEqual(supplementalGroups);
  });
});

describe("decoded messages", () => {
  test("an empty message has every default", () => {
    const config = methodNamed("CreateContainer").decodeRequest(lengthDelimited(2, Buffer.alloc(0))).config;
    expect(config).toMatchObject({
      metadata: null,
      command: [],
      labels: {},
      logPath: "",
      tty: false,
      stopSignal: "SIGNAL_RUNTIME_DEFAULT",
    });
    expect(methodNamed("StopContainer").decodeRequest(Buffer.alloc(0))).toEqual({ containerId: "", timeout: 0n });
    expect(methodNamed("ExecSync").decodeResponse(Buffer.alloc(0)).stdout).toEqual(Buffer.alloc(0));
  });

  test("bytes need not be UTF-8", () => {
    const value = Buffer.from([0xff, 0x00, 0xc3, 0x28]);
    const method = methodNamed("CreateContainer");
    const decoded = method.decodeRequest(method.encodeRequest({ config: { envs: [{ key: "BLOB", value }] } }));
    expect(decoded.config?.envs).toEqual([{ key: "BLOB", value }]);
    expect(Buffer.isBuffer(decoded.config?.envs[0]?.value)).toBe(true);
  });

  test("unknown fields are ignored", () => {
    const bytes = Buffer.concat([
      lengthDelimited(4000, Buffer.from("future")),
      lengthDelimited(1, Buffer.from("abc")),
      varint(4001, 7),
    ]);
    expect(methodNamed("ContainerStatus").decodeRequest(bytes)).toEqual({ containerId: "abc", verbose: false });
  });

  test("a map may hold the key __proto__ and pollutes nothing", () => {
    const entry = (key: string, value: string): Buffer =>
      lengthDelimited(6, Buffer.concat([lengthDelimited(1, Buffer.from(key)), lengthDelimited(2, Buffer.from(value))]));
    const config = Buffer.concat([entry("__proto__", "evil"), entry("constructor", "c"), entry("toString", "t")]);
    const method = methodNamed("RunPodSandbox");
    const decoded = method.decodeRequest(lengthDelimited(1, config));
    const labels = decoded.config?.labels ?? {};
    expect(Object.entries(labels)).toEqual([
      ["__proto__", "evil"],
      ["constructor", "c"],
      ["toString", "t"],
    ]);
    expect(Object.getPrototypeOf(labels)).toBe(Object.prototype);
    expect(({} as Record<string, unknown>)["evil"]).toBeUndefined();
    expect(method.decodeRequest(method.encodeRequest(decoded))).toEqual(decoded);
  });
});

describe("what is refused", () => {
  test("an enum number the contract does not know, alone, in a list of messages and deep down", () => {
    const port = lengthDelimited(1, lengthDelimited(5, varint(1, 3)));
    expect(codeOf(() => methodNamed("RunPodSandbox").decodeRequest(port))).toBe(Code.InvalidArgument);
    const profile = varint(1, -1);
    const deep = lengthDelimited(1, lengthDelimited(8, lengthDelimited(1, lengthDelimited(9, profile))));
    expect(codeOf(() => methodNamed("RunPodSandbox").decodeRequest(deep))).toBe(Code.InvalidArgument);
    expect(() => methodNamed("RunPodSandbox").decodeRequest(port)).toThrow(
      /PortMapping.protocol: no Protocol has the number 3/,
    );
  });

  test("the highest known enum number passes", () => {
    const port = lengthDelimited(1, lengthDelimited(5, varint(1, 2)));
    expect(methodNamed("RunPodSandbox").decodeRequest(port).config?.portMappings[0]?.protocol).toBe("SCTP");
  });

  test.each(["short \xff", `long ${"x".repeat(100)} \xff`])("a string that is not UTF-8 (%#)", (text) => {
    const bytes = lengthDelimited(1, Buffer.from(text, "latin1"));
    expect(codeOf(() => methodNamed("ContainerStatus").decodeRequest(bytes))).toBe(Code.InvalidArgument);
  });

  test.each(["ff", "0aff", "0a05", "08", "0a80808080808080808080808001", "00", "0f", "0b", "0b0b0b0b"])(
    "the bytes %s",
    (hex) => {
      expect(codeOf(() => methodNamed("ContainerStatus").decodeRequest(Buffer.from(hex, "hex")))).toBe(
        Code.InvalidArgument,
      );
    },
  );

  test("groups nested without end", () => {
    const bytes = Buffer.alloc(100_000, 0x0b);
    expect(codeOf(() => methodNamed("ContainerStatus").decodeRequest(bytes))).toBe(Code.InvalidArgument);
  });
});

describe("encoding", () => {
  test("null and undefined count as absent at every depth", () => {
    const method = methodNamed("ListContainers");
    const bytes = method.encodeResponse({
      containers: [{ id: "a", metadata: null, image: undefined, labels: null, createdAt: undefined, state: null }],
    });
    expect(method.decodeResponse(bytes).containers[0]).toMatchObject({
      id: "a",
      metadata: null,
      state: "CONTAINER_CREATED",
    });
  });

  test.each(["short \ud800", `\udfff${"long".repeat(50)}`])(
    "lone surrogates become U+FFFD in text, lists, keys and values (%#)",
    (text) => {
      const method = methodNamed("ListContainers");
      const bytes = method.encodeResponse({
        containers: [{ id: text, labels: { [text]: text } }],
      });
      const [container] = method.decodeResponse(bytes).containers;
      expect(container?.id).toBe(text.toWellFormed());
      expect(container?.labels).toEqual({ [text.toWellFormed()]: text.toWellFormed() });
      const args = methodNamed("ExecSync");
      expect(args.decodeRequest(args.encodeRequest({ cmd: ["ok", text] })).cmd).toEqual(["ok", text.toWellFormed()]);
    },
  );

  test("a list of frozen elements has the bytes of any other, also when it comes again in another order", () => {
    const method = methodNamed("ListContainers");
    const elements = [
      { id: "one", createdAt: 2n ** 60n, state: "CONTAINER_EXITED", labels: { "\ud800": "x" } },
      { id: "two", image: { image: "busybox" } },
      {},
    ] as const;
    const frozen = elements.map((element) => Object.freeze({ ...element }));
    for (let round = 0; round < 2; round += 1) {
      expect(method.encodeResponse({ containers: frozen })).toEqual(method.encodeResponse({ containers: elements }));
    }
    expect(method.encodeResponse({ containers: frozen.toReversed() })).toEqual(
      method.encodeResponse({ containers: elements.toReversed() }),
    );
  });

  test("an element that may change is encoded as it is now", () => {
    const method = methodNamed("ListContainers");
    const container = { id: "one", state: "CONTAINER_CREATED" as "CONTAINER_CREATED" | "CONTAINER_RUNNING" };
    method.encodeResponse({ containers: [container] });
    container.state = "CONTAINER_RUNNING";
    const bytes = method.encodeResponse({ containers: [container] });
    expect(method.decodeResponse(bytes).containers[0]?.state).toBe("CONTAINER_RUNNING");
  });

  test("the caller's object is left alone", () => {
    const init = { containers: [{ id: "\ud800", labels: { "\ud800": "x" } }] };
    methodNamed("ListContainers").encodeResponse(init);
    expect(init).toEqual({ containers: [{ id: "\ud800", labels: { "\ud800": "x" } }] });
  });
});

/** Random values for every kind of field, with the nasty ones made likely. */
function createGenerator(random: () => number): (type: protobuf.Type, depth: number) => Record<string, unknown> {
  const pick = <T>(values: readonly T[]): T => values[Math.floor(random() * values.length)]!;
  const scalars: Record<string, () => unknown> = {
    string: () => pick(["", "a", "__proto__", "häß", "\u0000", "日本", "x".repeat(300), "😀"]),
    bool: () => random() < 0.5,
    bytes: () => Buffer.from(Array.from({ length: Math.floor(random() * 70) }, () => Math.floor(random() * 256))),
    double: () => pick([0, -0, 1.5, -1e300, Number.MAX_SAFE_INTEGER, Infinity]),
    int32: () => pick([0, 1, -1, 2 ** 31 - 1, -(2 ** 31)]),
    uint32: () => pick([0, 1, 2 ** 32 - 1]),
    int64: () => pick([0n, 1n, -1n, 2n ** 53n + 1n, -(2n ** 63n), 2n ** 63n - 1n]),
    uint64: () => pick([0n, 1n, 2n ** 64n - 1n]),
  };
  const one = (field: protobuf.Field, depth: number): unknown => {
    if (field.resolvedType instanceof protobuf.Enum) return pick(Object.keys(field.resolvedType.values));
    if (field.resolvedType instanceof protobuf.Type) return generate(field.resolvedType, depth + 1);
    return scalars[field.type]!();
  };
  const value = (field: protobuf.Field, depth: number): unknown => {
    if (field instanceof protobuf.MapField) {
      return Object.fromEntries(
        Array.from({ length: Math.floor(random() * 4) }, () => [scalars["string"]!(), one(field, depth)]),
      );
    }
    if (field.repeated) return Array.from({ length: Math.floor(random() * 3) }, () => one(field, depth));
    return field.resolvedType instanceof protobuf.Type && random() < 0.4 + depth * 0.1 ? null : one(field, depth);
  };
  const generate = (type: protobuf.Type, depth: number): Record<string, unknown> =>
    Object.fromEntries(type.fieldsArray.map((field) => [field.name, value(field, depth)]));
  return generate;
}

describe("generated input", () => {
  const seed = 20_261_123;

  test("every message there and back is the same", () => {
    const generate = createGenerator(createRandom(seed));
    const visitor = createVisitor();
    for (const type of messagesOf(readSchema("runtime.v1"))) {
      const codec = createCodec(type, visitor);
      for (let round = 0; round < 5; round += 1) {
        const message = generate(type, 0);
        expect(codec.decode(codec.encode(message)), type.name).toEqual(message);
      }
    }
  });

  test("damaged and random bytes give a message or InvalidArgument, never anything else", () => {
    const random = createRandom(seed);
    const generate = createGenerator(random);
    const below = (limit: number): number => Math.floor(random() * limit);
    const damage = (bytes: Buffer): Buffer => {
      const damaged = bytes.subarray(0, below(bytes.length + 1));
      for (let flip = 0; flip < 3 && damaged.length > 0; flip += 1) damaged[below(damaged.length)] = below(256);
      return damaged;
    };
    const all = (["runtime.v1", "berth.v1"] as const).flatMap((name) => messagesOf(readSchema(name)));
    const types = new Map(all.map((type) => [type.name, type]));
    const outcomes = new Set<Code | undefined>();
    for (const method of loadServices()) {
      const type = types.get(`${method.name === "GetContainerEvents" ? "GetEvents" : method.name}Request`)!;
      for (let round = 0; round < 20; round += 1) {
        const noise = Buffer.from(Array.from({ length: below(60) }, () => below(256)));
        const damaged = damage(method.encodeRequest(generate(type, 0)));
        for (const bytes of [noise, damaged]) {
          outcomes.add(codeOf(() => method.encodeRequest(method.decodeRequest(bytes))));
        }
      }
    }
    expect(outcomes).toEqual(new Set([undefined, Code.InvalidArgument]));
  });
});
