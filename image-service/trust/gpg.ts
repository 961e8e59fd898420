import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";

import type { ImageHost } from "../host.ts";

const timeoutMs = 20_000;
const maxPayloadBytes = 64 << 10;
const armorHead = "-----BEGIN PGP PUBLIC KEY BLOCK-----";

/** Runs GnuPG, each time in a home of its own. */
export interface GpgParts {
  readonly host: Pick<ImageHost, "run" | "which">;
  /** Homes are made in it; it exists, and what a crash leaves in it is its owner's to remove. */
  readonly directory: string;
}

/** Keys as gpg reads a keyring from a file; exported ones are often armored (RFC 4880, section 6.2). */
function dearmorKeys(keys: Buffer): Buffer {
  const text = keys.toString("latin1");
  if (!text.trimStart().startsWith(armorHead)) return keys;
  const blocks = [
    ...text.matchAll(/-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n([\s\S]*?)-----END PGP PUBLIC KEY BLOCK-----/g),
  ];
  return Buffer.concat(
    blocks.map(([, block = ""]) => {
      const body = block.replace(/^(?:[A-Za-z]+: .*\r?\n)*\r?\n/, "");
      return Buffer.from(body.replace(/^=[A-Za-z0-9+/]{4}\s*$/m, ""), "base64");
    }),
  );
}

interface Verdict {
  readonly isGood: boolean;
  readonly why: string;
}

const faults: Readonly<Partial<Record<string, string>>> = {
  BADSIG: "the signature is bad",
  ERRSIG: "the signature cannot be checked",
  NO_PUBKEY: "it is made with another key",
  EXPSIG: "the signature has expired",
  EXPKEYSIG: "the key has expired",
  REVKEYSIG: "the key is revoked",
  NODATA: "it is no signed message",
};

/** Exactly one signature, good, over one binary document; what gpg says in words is not looked at. */
function judge(status: string): Verdict {
  const lines = status.split("\n").flatMap((line) => (line.startsWith("[GNUPG:] ") ? [line.slice(9).split(" ")] : []));
  const found = (word: string): readonly (readonly string[])[] => lines.filter(([first]) => first === word);
  const fault = Object.keys(faults).findLast((word) => found(word).length > 0);
  if (fault !== undefined) return { isGood: false, why: faults[fault] ?? fault };
  const [valid] = found("VALIDSIG");
  const isSingle = ["NEWSIG", "GOODSIG", "VALIDSIG", "PLAINTEXT"].every((word) => found(word).length === 1);
  const isGood = isSingle && valid?.[9] === "00"; // a signature of a binary document, not of text
  return { isGood, why: "it is no signed message" };
}

/**
 * Checks an OpenPGP message against keys, expiry and revocation included, and returns what was signed.
 *
 * @throws {Error} with the reason if the signature does not hold, or gpg cannot be run.
 * @see https://www.rfc-editor.org/rfc/rfc4880#section-11.3
 */
export async function openSignedMessage(
  { host, directory }: GpgParts,
  keyrings: readonly Buffer[],
  message: Uint8Array,
  signal: AbortSignal,
): Promise<Buffer> {
  const program = await host.which("gpg");
  if (program === undefined) throw new Error("gpg is not installed, which checks signedBy");
  const home = join(directory, crypto.randomUUID());
  await mkdir(home, { mode: 0o700 });
  try {
    const paths = keyrings.map((_, index) => join(home, `keys-${index}.gpg`));
    for (const [index, keys] of keyrings.entries()) await writeFile(paths[index] ?? "", dearmorKeys(keys));
    const { status, stdout, stderr, truncated } = await host.run({
      argv: [program, "--homedir", home, ...gpgOptions, ...paths.flatMap((path) => ["--keyring", path]), "--verify"],
      env: { LC_ALL: "C" },
      input: message,
      maxOutputBytes: maxPayloadBytes,
      signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
    });
    const { isGood, why } = judge(stderr.toString("utf8"));
    if (!isGood || status.kind !== "exited" || status.code !== 0) throw new Error(why);
    if (truncated) throw new Error(`its payload is larger than ${maxPayloadBytes} bytes`);
    return stdout;
  } finally {
    await rm(home, { recursive: true, force: true });
  }
}

/** No configuration, no agent, no network, no key but those given; words go nowhere, the status alone to stderr. */
const gpgOptions = [
  "--batch",
  "--no-options",
  "--no-autostart",
  "--no-default-keyring",
  "--no-auto-key-retrieve",
  "--no-auto-key-locate",
  "--disable-dirmngr",
  "--trust-model",
  "always",
  "--log-file",
  "/dev/null",
  "--status-fd",
  "2",
  "--output",
  "-",
] as const;
