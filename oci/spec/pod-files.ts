import { isIP } from "node:net";
import type { cri } from "../../cri-api/index.ts";
import { invalid, quote } from "./invalid.ts";
import { assertNoControlCharacters } from "./text.ts";

/** What the kernel takes (__NEW_UTS_LEN). */
const maxHostnameBytes = 64;

/**
 * The text of resolv.conf; "" where the config says nothing, and the pod gets a copy of the host's file.
 *
 * @throws {CriError} `InvalidArgument` for a server that is no address, or a word that could add a line or a word.
 */
export function resolvConfText(dns: cri.DNSConfig): string {
  const searches = dns.searches.map((domain) => checkWord("DNS search domain", domain));
  const options = dns.options.map((option) => checkWord("DNS option", option));
  for (const server of dns.servers) {
    assertNoControlCharacters("DNS server", server);
    if (isIP(server) === 0) throw invalid(`DNS server ${quote(server)} is not an IP address`);
  }
  const lines = [
    ...(searches.length > 0 ? [`search ${searches.join(" ")}`] : []),
    ...dns.servers.map((server) => `nameserver ${server}`),
    ...(options.length > 0 ? [`options ${options.join(" ")}`] : []),
  ];
  return lines.map((line) => `${line}\n`).join("");
}

function checkWord(field: string, word: string): string {
  assertNoControlCharacters(field, word);
  if (word === "" || /[\s#;]/.test(word)) throw invalid(`${field} ${quote(word)} is not one word`);
  return word;
}

/**
 * The text of /etc/hosts for a pod whose kubelet mounts none: the loopback names, and its own name by each address.
 *
 * @throws {CriError} `InvalidArgument` for a malformed hostname or address.
 */
export function hostsText(hostname: string, ips: readonly string[]): string {
  assertHostname(hostname);
  const own = ips.map((ip) => {
    if (isIP(ip) === 0) throw invalid(`pod address ${quote(ip)} is not an IP address`);
    return `${ip}\t${hostname}\n`;
  });
  return ["127.0.0.1\tlocalhost\n", "::1\tlocalhost ip6-localhost ip6-loopback\n", ...own].join("");
}

/** @throws {CriError} `InvalidArgument` for what is no hostname of RFC 1123 or longer than the kernel takes. */
export function assertHostname(hostname: string): void {
  const isName = /^[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?$/.test(hostname);
  if (!isName || hostname.length > maxHostnameBytes) throw invalid(`hostname ${quote(hostname)} is malformed`);
}
