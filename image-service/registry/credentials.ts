import { createHash } from "node:crypto";

import { Code, CriError, type cri } from "../../cri-api/index.ts";

/** What the caller proves itself with; never logged, never part of an error. */
export type Credentials =
  | { readonly kind: "basic"; readonly username: string; readonly password: string }
  | { readonly kind: "identity"; readonly identityToken: string }
  | { readonly kind: "registry"; readonly registryToken: string };

function decodeAuth(auth: string): Credentials {
  const decoded = Buffer.from(auth, "base64").toString("utf8").replace(/\0+$/, "");
  const colon = decoded.indexOf(":");
  if (colon === -1) throw new CriError(Code.InvalidArgument, "the auth field is not base64 of user:password");
  return { kind: "basic", username: decoded.slice(0, colon), password: decoded.slice(colon + 1) };
}

/** The credentials of a pull request, or nothing for an anonymous pull. */
export function credentialsOf(auth: cri.AuthConfig | null): Credentials | undefined {
  if (auth === null) return undefined;
  if (auth.registryToken !== "") return { kind: "registry", registryToken: auth.registryToken };
  if (auth.identityToken !== "") return { kind: "identity", identityToken: auth.identityToken };
  if (auth.username !== "" || auth.password !== "")
    return { kind: "basic", username: auth.username, password: auth.password };
  return auth.auth === "" ? undefined : decodeAuth(auth.auth);
}

/** Tells equal credentials from different ones without keeping them as a key. */
export function credentialsFingerprint(credentials: Credentials | undefined): string {
  if (credentials === undefined) return "anonymous";
  return createHash("sha256").update(JSON.stringify(credentials)).digest("base64url");
}

/** The host of AuthConfig.server_address, which may be a bare host or a URL; empty when it names none. */
export function serverAddressHost(serverAddress: string): string {
  return serverAddress.replace(/^https?:\/\//, "").split("/", 1)[0] ?? "";
}
