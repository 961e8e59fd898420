import { BlockList, isIP } from "node:net";

import type { ProxySettings } from "./endpoint.ts";

interface Target {
  readonly host: string;
  readonly port: string;
}

/** The host of a URL without the brackets of IPv6, and its port, the scheme's own if it names none. */
function targetOf(url: URL): Target {
  const port = url.port === "" ? (url.protocol === "https:" ? "443" : "80") : url.port;
  return { host: url.hostname.replace(/^\[|\]$/g, "").toLowerCase(), port };
}

function familyOf(address: string): "ipv4" | "ipv6" {
  return isIP(address) === 6 ? "ipv6" : "ipv4";
}

function isInNetwork(address: string, network: string): boolean {
  const [base = "", bits = ""] = network.split("/");
  if (isIP(base) === 0 || isIP(address) !== isIP(base) || !/^\d{1,3}$/.test(bits)) return false;
  if (Number(bits) > (isIP(base) === 6 ? 128 : 32)) return false;
  const list = new BlockList();
  list.addSubnet(base, Number(bits), familyOf(base));
  return list.check(address, familyOf(address));
}

/** One entry of NO_PROXY: `*`, a network, or a host with an optional port; a domain stands for all below it. */
function isExempt(target: Target, entry: string): boolean {
  if (entry === "*") return true;
  if (entry.includes("/")) return isInNetwork(target.host, entry);
  const [, bracketed, plain, port] = /^(?:\[([^\]]*)\]|(.*?))(?::(\d+))?$/.exec(entry) ?? [];
  const host = isIP(entry) === 6 ? entry : (bracketed ?? plain ?? "");
  if (port !== undefined && host !== entry && port !== target.port) return false;
  if (isIP(host) !== 0) return host === target.host;
  const domain = host.replace(/^\*/, "");
  if (domain === "") return false;
  return domain.startsWith(".")
    ? target.host.endsWith(domain)
    : target.host === domain || target.host.endsWith(`.${domain}`);
}

function isLoopback(host: string): boolean {
  return host === "localhost" || isInNetwork(host, "127.0.0.0/8") || host === "::1";
}

/**
 * The proxy to go through, as other programs read the environment: by the scheme of what is asked for, never for
 * loopback, and not where NO_PROXY exempts the host.
 *
 * @returns undefined to go straight, also where the variable holds no URL of a proxy.
 */
export function proxyFor(settings: ProxySettings, url: URL): URL | undefined {
  const proxy = url.protocol === "https:" ? settings.httpsProxy : settings.httpProxy;
  if (proxy === "") return undefined;
  const target = targetOf(url);
  if (isLoopback(target.host)) return undefined;
  const entries = settings.noProxy
    .toLowerCase()
    .split(",")
    .map((entry) => entry.trim());
  if (entries.some((entry) => entry !== "" && isExempt(target, entry))) return undefined;
  const written = proxy.includes("://") ? proxy : `http://${proxy}`;
  return URL.canParse(written) && /^https?:/.test(written) ? new URL(written) : undefined;
}
