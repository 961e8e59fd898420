/** What a subprotocol of exec and attach means. */
export interface CommandProtocol {
  readonly name: string;
  /** The error stream carries a metav1.Status instead of text. */
  readonly hasJsonStatus: boolean;
  readonly hasResize: boolean;
  /** Messages `255, channel` half-close a channel; WebSocket only. */
  readonly hasCloseSignal: boolean;
  /** Messages are text, their payload in base64; WebSocket only. */
  readonly isBase64: boolean;
}

function commandProtocol(version: number, name: string, isBase64 = false): CommandProtocol {
  return { name, hasJsonStatus: version >= 4, hasResize: version >= 3, hasCloseSignal: version >= 5, isBase64 };
}

/** @see https://github.com/kubernetes/kubernetes/blob/v1.36.0/staging/src/k8s.io/apimachinery/pkg/util/remotecommand/constants.go */
export const spdyCommandProtocols: readonly CommandProtocol[] = [
  commandProtocol(5, "v5.channel.k8s.io"),
  commandProtocol(4, "v4.channel.k8s.io"),
  commandProtocol(3, "v3.channel.k8s.io"),
  commandProtocol(2, "v2.channel.k8s.io"),
  commandProtocol(1, "channel.k8s.io"),
];

export const webSocketCommandProtocols: readonly CommandProtocol[] = [
  ...spdyCommandProtocols,
  commandProtocol(4, "v4.base64.channel.k8s.io", true),
  commandProtocol(3, "v3.base64.channel.k8s.io", true),
  commandProtocol(2, "v2.base64.channel.k8s.io", true),
  commandProtocol(1, "base64.channel.k8s.io", true),
];

export const portForwardProtocol = "portforward.k8s.io";

/** How port-forward travels over a WebSocket: as SPDY in binary messages, or as channels. */
export type PortForwardTransport =
  | { readonly name: string; readonly kind: "tunnel" }
  | { readonly name: string; readonly kind: "channels"; readonly isBase64: boolean };

export const webSocketPortForwardProtocols: readonly PortForwardTransport[] = [
  { name: `SPDY/3.1+${portForwardProtocol}`, kind: "tunnel" },
  { name: "v4.channel.k8s.io", kind: "channels", isBase64: false },
  { name: "v4.base64.channel.k8s.io", kind: "channels", isBase64: true },
  { name: "channel.k8s.io", kind: "channels", isBase64: false },
  { name: "base64.channel.k8s.io", kind: "channels", isBase64: true },
];

/** The names in a header, which may come several times or as a list. */
export function readNames(header: string | readonly string[] | undefined): readonly string[] {
  const text = typeof header === "string" ? header : (header ?? []).join(",");
  return text
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "");
}

/**
 * The first of the client's protocols that we have. A client that names none gets `fallback`.
 *
 * @returns undefined if we have none of those it names.
 */
export function negotiate<Protocol extends { readonly name: string }>(
  offered: readonly string[],
  supported: readonly Protocol[],
  fallback: string,
): Protocol | undefined {
  const names = offered.length === 0 ? [fallback] : offered;
  for (const name of names) {
    const protocol = supported.find((candidate) => candidate.name === name);
    if (protocol !== undefined) return protocol;
  }
  return undefined;
}
