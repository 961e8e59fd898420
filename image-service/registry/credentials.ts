import { createHash } from "node:crypto";

import { Code, CriError, type cri } from "../../cri-api/index.ts";
import { canonicalPlace } from "../reference.ts";

/** What the caller proves itself with; never logged, never part of an error. */
export type Credentials =
  | { readonly kind: "basic"; readonly username: string; readonly password: string }
  | { readonly kind: "identity"; readonly identityToken: string }
  | { readonly kind: "registry"; readonly registryToken: string };

/** Takes base64 of `user:password` apart; undefined if it is anything else. */
export function decodeAuth(auth: string): Credentials | undefined {
  const decoded = Buffer.from(auth, "base64").toString("utf8").replace(/\0+$/, "");
  const colon = decoded.indexOf(":");
  if (colon === -1) return undefined;
  return { kind: "basic", username: decoded.slice(0, colon), password: decoded.slice(colon + 1) };
}

/**
 * The credentials of a pull request, or nothing for an anonymous pull.
 *
 * @throws {CriError} `InvalidArgument` for an `auth` field that is no base64 of user:password.
 */
export function credentialsOf(auth: cri.AuthConfig | null): Credentials | undefined {
  if (auth === null) return undefined;
  if (auth.registryToken !== "") return { kind: "registry", registryToken: auth.registryToken };
  if (auth.identityToken !== "") return { kind: "identity", identityToken: auth.identityToken };
  if (auth.username !== "" || auth.password !== "")
    return { kind: "basic", username: auth.username, password: auth.password };
  if (auth.auth === "") return undefined;
  const decoded = decodeAuth(auth.auth);
  if (decoded === undefined) throw new CriError(Code.InvalidArgument, "the auth field is not base64 of user:password");
  return decoded;
}

/** Tells equal credentials from different ones without keeping them as a key. */
export function credentialsFingerprint(credentials: unknown): string {
  if (credentials === undefined) return "anonymous";
  return createHash("sha256").update(JSON.stringify(credentials)).digest("base64url");
}

const dockerHubNames: ReadonlySet<string> = new Set(["index.docker.io", "registry-1.docker.io"]);

/**
 * The registry that a server address or a key of an auth file is about: a bare host, or a URL, or a host with a path,
 * in whatever spelling. Docker Hub has one name among its many; empty when nothing is named.
 */
export function registryHostOf(address: string): string {
  const host = canonicalPlace(address.replace(/^https?:\/\//, "").split("/", 1)[0] ?? "");
  return dockerHubNames.has(host) ? "docker.io" : host;
}
