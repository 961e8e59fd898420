import { createPublicKey, type KeyObject, verify } from "node:crypto";

/** Keys from PEM files. @throws {Error} for a file that holds none. */
export function publicKeysOf(files: readonly Buffer[]): readonly KeyObject[] {
  return files.map((pem) => {
    try {
      return createPublicKey({ key: pem, format: "pem" });
    } catch (thrown) {
      throw new Error("a public key of the policy is not one in PEM", { cause: thrown });
    }
  });
}

/** Ed25519 signs the bytes themselves, the others their SHA-256; RSA with PKCS #1 v1.5 padding. */
export function isSignedBy(key: KeyObject, data: Buffer, signature: Buffer): boolean {
  const { asymmetricKeyType } = key;
  if (asymmetricKeyType === "ed25519") return verify(null, data, key, signature);
  return (asymmetricKeyType === "ec" || asymmetricKeyType === "rsa") && verify("sha256", data, key, signature);
}
