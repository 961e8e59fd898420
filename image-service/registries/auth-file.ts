import * as v from "valibot";

import { canonicalPlace } from "../reference.ts";
import { type Credentials, decodeAuth, registryHostOf } from "../registry/credentials.ts";
import { checkDocument, FileIssue, parseJson } from "./file-issue.ts";

/** What `auth.json` or Docker's `config.json` knows: credentials, and programs that know some. */
export interface AuthFile {
  /** By `host[:port][/path]`, its host spelled as in names; or by a URL, as written. */
  readonly auths: ReadonlyMap<string, Credentials>;
  /** Names of credential helpers by host. */
  readonly credHelpers: ReadonlyMap<string, string>;
  /** The helper for every other host. */
  readonly credsStore: string | undefined;
}

const optionalText = v.optional(v.string("must be a string"), "");
const entrySchema = v.object(
  {
    auth: optionalText,
    username: optionalText,
    password: optionalText,
    identitytoken: optionalText,
    registrytoken: optionalText,
  },
  "must be an object",
);
const authsSchema = v.record(v.string(), entrySchema, "must be an object of objects");
const fileSchema = v.object(
  {
    auths: v.optional(authsSchema, {}),
    credHelpers: v.optional(v.record(v.string(), v.string("must be a string"), "must be an object"), {}),
    credsStore: optionalText,
  },
  "must be an object",
);

/** An entry without anything in it only says that somebody has logged in through a helper. */
function credentialsIn(key: string, entry: v.InferOutput<typeof entrySchema>): Credentials | undefined {
  const { auth, username, password, identitytoken: identityToken, registrytoken: registryToken } = entry;
  if (registryToken !== "") return { kind: "registry", registryToken };
  if (identityToken !== "") return { kind: "identity", identityToken };
  if (username !== "" || password !== "") return { kind: "basic", username, password };
  if (auth === "") return undefined;
  const decoded = decodeAuth(auth);
  if (decoded === undefined) throw new FileIssue(`the auth of "${key}" is not base64 of user:password`);
  return decoded;
}

/**
 * @throws {FileIssue} that repeats nothing of what the file holds but its keys.
 * @see containers-auth.json(5)
 */
export function parseAuthFile(text: string, format: "auth.json" | "legacy"): AuthFile {
  const document = parseJson(text);
  const file =
    format === "legacy"
      ? { auths: checkDocument(authsSchema, document), credHelpers: {}, credsStore: "" }
      : checkDocument(fileSchema, document);
  const auths = Object.entries(file.auths).flatMap(([key, entry]) => {
    const credentials = credentialsIn(key, entry);
    return credentials === undefined ? [] : [[canonicalPlace(key), credentials] as const];
  });
  return {
    auths: new Map(auths),
    credHelpers: new Map(Object.entries(file.credHelpers)),
    credsStore: file.credsStore === "" ? undefined : file.credsStore,
  };
}

/** `host/namespace/repository`, `host/namespace`, `host`: the longest that is known decides. */
function keysFor(location: string): readonly string[] {
  const parts = location.split("/");
  return parts.map((_, index) => parts.slice(0, parts.length - index).join("/"));
}

/** The credentials for a repository, `host[:port]/path`. */
export function authFor(file: AuthFile, location: string): Credentials | undefined {
  const known = keysFor(canonicalPlace(location)).find((key) => file.auths.has(key));
  if (known !== undefined) return file.auths.get(known);
  const host = registryHostOf(location);
  // A key that is a host after all, such as `https://index.docker.io/v1/`: a path makes it one of a namespace.
  const isHost = (key: string): boolean => registryHostOf(key) === host && (/^https?:/.test(key) || !key.includes("/"));
  const spelled = [...file.auths.keys()].find(isHost);
  return spelled === undefined ? undefined : file.auths.get(spelled);
}

/** Which helper the file names for a repository's host, and under which name the helper knows it. */
export function helperFor(file: AuthFile, location: string): { helper: string; server: string } | undefined {
  const host = registryHostOf(location);
  const key = [...file.credHelpers.keys()].find((each) => registryHostOf(each) === host);
  const named = key === undefined ? undefined : file.credHelpers.get(key);
  if (key !== undefined && named !== undefined) return { helper: named, server: key };
  if (file.credsStore === undefined) return undefined;
  return { helper: file.credsStore, server: host === "docker.io" ? "https://index.docker.io/v1/" : host };
}
