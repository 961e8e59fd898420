import { formatReference, type ImageReference, repositoryOf } from "../reference.ts";
import type { Policy, Requirement } from "./policy.ts";

/** `*.b.c`, `*.c` of the host `a.b.c`, whatever its port. */
function wildcardsOf({ domain }: ImageReference): readonly string[] {
  const [, ...parents] = domain.replace(/:\d+$/, "").split(".");
  return parents.map((_, index) => `*.${parents.slice(index).join(".")}`);
}

/** A name, its repository and what that lies in, most specific first: `h.x/a/b:t`, `h.x/a/b`, `h.x/a`, `h.x`, `*.x`. */
export function scopesOf(reference: ImageReference): readonly string[] {
  const scopes = [formatReference(reference)];
  for (let name = repositoryOf(reference); name !== ""; name = name.slice(0, Math.max(0, name.lastIndexOf("/"))))
    scopes.push(name);
  return [...scopes, ...wildcardsOf(reference)];
}

/** What the policy demands of an image from a registry: the requirements of the most specific scope, and no others. */
export function requirementsFor(policy: Policy, reference: ImageReference): readonly Requirement[] {
  const scopes = policy.transports.get("docker");
  for (const scope of [...scopesOf(reference), ""]) {
    const found = scopes?.get(scope);
    if (found !== undefined) return found;
  }
  return policy.default;
}
