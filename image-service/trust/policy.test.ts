import { describe, expect, test } from "vitest";

import { parseImageReference } from "../reference.ts";
import { parsePolicy, type Policy } from "./policy.ts";
import { requirementsFor } from "./policy-scope.ts";

const accept = [{ type: "insecureAcceptAnything" }];
const reject = [{ type: "reject" }];
const key = Buffer.from("a key").toString("base64");

function parse(document: unknown): Policy {
  return parsePolicy(Buffer.from(typeof document === "string" ? document : JSON.stringify(document)));
}

function withRequirement(requirement: object): object {
  return { default: [requirement] };
}

describe("parsePolicy", () => {
  test("reads every requirement and identity of the man page", () => {
    const identities = [
      { type: "matchExact" },
      { type: "matchRepoDigestOrExact" },
      { type: "matchRepository" },
      { type: "exactReference", dockerReference: "example.com/a:b" },
      { type: "exactRepository", dockerRepository: "example.com/a" },
      { type: "remapIdentity", prefix: "mirror:5000/x", signedPrefix: "example.com" },
    ];
    const requirements: ({ type: string } & Record<string, unknown>)[] = [
      ...accept,
      ...reject,
      ...identities.map((signedIdentity) => ({
        type: "signedBy",
        keyType: "GPGKeys",
        keyPath: "/k",
        signedIdentity,
      })),
      { type: "signedBy", keyType: "GPGKeys", keyPaths: ["/a", "/b"] },
      { type: "sigstoreSigned", keyData: key, rekorPublicKeyPath: "/r" },
      { type: "sigstoreSigned", keyDatas: [key, key] },
      {
        type: "sigstoreSigned",
        fulcio: { caData: key, oidcIssuer: "https://i", subjectEmail: "a@b" },
        rekorPublicKeyData: key,
      },
      { type: "sigstoreSigned", pki: { caRootsPath: "/ca", subjectEmail: "a@b" } },
      { type: "sigstoreSigned", pki: { caRootsData: key, caIntermediatesPath: "/i", subjectHostname: "b.example" } },
    ];
    const parsed = parse({ default: requirements });
    expect(parsed.default.map(({ type }) => type)).toEqual(requirements.map(({ type }) => type));
    expect(parsed.default.at(2)).toEqual({
      type: "signedBy",
      keys: { paths: ["/k"] },
      signedIdentity: { type: "matchExact" },
    });
    expect(parsed.default.at(8)).toMatchObject({ signedIdentity: { type: "matchRepoDigestOrExact" } });
  });

  test("what cannot be checked is kept as a refusal of its own scope", () => {
    const base = { type: "signedBaseLayer", baseLayerIdentity: { type: "matchExact" } };
    expect(parse(withRequirement(base)).default).toEqual([{ type: "unsupported", what: "signedBaseLayer" }]);
  });

  test.each([
    ["no default", {}],
    ["an empty default", { default: [] }],
    ["an unknown top-level field", { default: accept, defaults: accept }],
    ["an unknown field of a requirement", withRequirement({ type: "reject", keyPath: "/k" })],
    ["an unknown type", withRequirement({ type: "signedby" })],
    ["no type", withRequirement({})],
    ["an empty scope", { default: accept, transports: { docker: { "h/a": [] } } }],
    ["a transport that is a list", { default: accept, transports: { docker: [] } }],
    ["transports that are null", { default: accept, transports: null }],
    ["no key type", withRequirement({ type: "signedBy", keyPath: "/k" })],
    ["another key type", withRequirement({ type: "signedBy", keyType: "X509", keyPath: "/k" })],
    ["no key", withRequirement({ type: "signedBy", keyType: "GPGKeys" })],
    ["two sources of keys", withRequirement({ type: "signedBy", keyType: "GPGKeys", keyPath: "/k", keyData: key })],
    ["no key paths", withRequirement({ type: "signedBy", keyType: "GPGKeys", keyPaths: [] })],
    ["a relative key path", withRequirement({ type: "signedBy", keyType: "GPGKeys", keyPath: "k" })],
    ["key data that is not base64", withRequirement({ type: "sigstoreSigned", keyData: "!" })],
    ["two sigstore keys", withRequirement({ type: "sigstoreSigned", keyData: key, keyPath: "/k" })],
    [
      "an identity without its name",
      withRequirement({ type: "sigstoreSigned", keyData: key, signedIdentity: { type: "exactReference" } }),
    ],
    [
      "an exact reference without a tag",
      withRequirement({
        type: "sigstoreSigned",
        keyData: key,
        signedIdentity: { type: "exactReference", dockerReference: "h.x/a" },
      }),
    ],
    [
      "an exact repository with a tag",
      withRequirement({
        type: "sigstoreSigned",
        keyData: key,
        signedIdentity: { type: "exactRepository", dockerRepository: "h.x/a:b" },
      }),
    ],
    [
      "a prefix with a tag",
      withRequirement({
        type: "sigstoreSigned",
        keyData: key,
        signedIdentity: { type: "remapIdentity", prefix: "h.x/a:b", signedPrefix: "h" },
      }),
    ],
    [
      "fulcio without a log",
      withRequirement({ type: "sigstoreSigned", fulcio: { caData: key, oidcIssuer: "i", subjectEmail: "e" } }),
    ],
    [
      "fulcio without an issuer",
      withRequirement({ type: "sigstoreSigned", fulcio: { caData: key, subjectEmail: "e" }, rekorPublicKeyData: key }),
    ],
    ["pki without roots", withRequirement({ type: "sigstoreSigned", pki: { subjectEmail: "e" } })],
    ["pki without a subject", withRequirement({ type: "sigstoreSigned", pki: { caRootsPath: "/ca" } })],
    [
      "pki with a log",
      withRequirement({
        type: "sigstoreSigned",
        pki: { caRootsPath: "/ca", subjectEmail: "e" },
        rekorPublicKeyPath: "/r",
      }),
    ],
    [
      "pki with intermediates twice",
      withRequirement({
        type: "sigstoreSigned",
        pki: { caRootsPath: "/ca", subjectEmail: "e", caIntermediatesPath: "/i", caIntermediatesData: key },
      }),
    ],
    [
      "two logs",
      withRequirement({ type: "sigstoreSigned", keyData: key, rekorPublicKeyData: key, rekorPublicKeyPath: "/r" }),
    ],
    ["a field twice", '{"default":[{"type":"reject"}],"default":[{"type":"insecureAcceptAnything"}]}'],
    [
      "a scope twice",
      '{"default":[{"type":"reject"}],"transports":{"docker":{"a":[{"type":"reject"}],"a":[{"type":"reject"}]}}}',
    ],
    ["a scope in two spellings", { default: accept, transports: { docker: { "h.x": accept, "H.x:443": reject } } }],
    ["not JSON", "default: reject"],
  ])("refuses the whole file for %s", (_, document) => {
    expect(() => parse(document)).toThrow(Error);
  });

  test("says where", () => {
    expect(() => parse({ default: accept, transports: { docker: { "h.x/a": [{ type: "no" }] } } })).toThrow(
      /transports\.docker\.h\.x\/a\.0/,
    );
  });
});

describe("requirementsFor", () => {
  const scopes = [
    "example.com/a/b:t",
    `example.com/a/b@sha256:${"1".repeat(64)}`,
    "example.com/a/b",
    "example.com/a",
    "example.com",
    "*.example.com",
    "*.com",
    "registry:5000",
    "",
  ];
  const policy = parse({
    default: [{ type: "sigstoreSigned", keyPath: "/default" }],
    transports: {
      docker: Object.fromEntries(scopes.map((scope) => [scope, [{ type: "sigstoreSigned", keyPath: `/${scope}` }]])),
      "docker-archive": { "": accept },
      __proto__: { "": accept },
    },
  });

  test.each([
    ["example.com/a/b:t", "example.com/a/b:t"],
    ["example.com/a/b", "example.com/a/b"],
    [`example.com/a/b:t@sha256:${"1".repeat(64)}`, `example.com/a/b@sha256:${"1".repeat(64)}`],
    ["example.com/a/bb:t", "example.com/a"],
    ["example.com/ab/b:t", "example.com"],
    ["x.example.com/a/b:t", "*.example.com"],
    ["x.y.example.com:5000/a/b:t", "*.example.com"],
    ["other.com/a", "*.com"],
    ["registry:5000/a", "registry:5000"],
    ["registry:5001/a", ""],
    ["busybox", ""],
  ])("%s is held against scope %j", (name, scope) => {
    expect(requirementsFor(policy, parseImageReference(name))).toMatchObject([
      { signer: { keys: { paths: [`/${scope}`] } } },
    ]);
  });

  test.each(["Example.com/a/b:t", "EXAMPLE.COM:443/a/b:t", "example.com:0443/a/b:t"])(
    "%s is no way round its scope, nor is the scope's own spelling",
    (name) => {
      for (const scope of ["example.com/a", "Example.com:443/a"]) {
        const spelled = parse({ default: accept, transports: { docker: { [scope]: reject } } });
        expect(requirementsFor(spelled, parseImageReference(name))).toEqual(reject);
      }
    },
  );

  test("without a scope that fits the default counts", () => {
    const plain = parse({ default: reject, transports: { docker: { "h.x": accept } } });
    expect(requirementsFor(plain, parseImageReference("busybox"))).toEqual(reject);
  });
});
