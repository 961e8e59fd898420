import { mkdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { beforeAll, describe, expect, inject, test } from "vitest";
import { Code } from "../cri-api/index.ts";
import { containerConfig } from "./harness/configs.ts";
import { useDaemon } from "./harness/fixture.ts";
import { fetchManifest } from "./harness/image-builder.ts";
import { runCommand } from "./harness/run-command.ts";
import { testImages } from "./harness/test-images.ts";

const [repository = "", tag = ""] = testImages.busybox.split(":");
const signer = "signer@example.com";

const berth = useDaemon({
  pull: [],
  async prepare(workspace, resources) {
    const at = (name: string): string => path.join(workspace.directory, name);
    await mkdir(at("keys"), { mode: 0o700 });
    for (const name of ["policies", "registries.d", "signatures"]) await mkdir(at(name));
    const gpg = ["gpg", "--homedir", at("keys"), "--batch", "--quiet"];
    resources.defer(async () => void (await runCommand(["gpgconf", "--homedir", at("keys"), "--kill", "all"])));
    await runCommand([...gpg, "--passphrase", "", "--quick-generate-key", signer, "ed25519", "sign", "never"]);
    await runCommand([...gpg, "--output", at("key.gpg"), "--export", signer]);
    const signed = [{ type: "signedBy", keyType: "GPGKeys", keyPath: at("key.gpg") }];
    const policy = { default: [{ type: "reject" }], transports: { docker: { [inject("registry")]: signed } } };
    await writeFile(at("policy.json"), JSON.stringify(policy));
    await writeFile(at("registries.d/default.yaml"), `default-docker:\n  lookaside: file://${at("signatures")}\n`);
    const places = { signature_policy_dir: at("policies"), signature_sources_dir: at("registries.d") };
    return { config: { signature_policy: at("policy.json"), ...places } };
  },
});

/** Signs an image with skopeo, and puts the signature where the daemon looks for it. */
async function sign(image: string): Promise<void> {
  const { directory } = berth.workspace;
  const { digest } = await fetchManifest(inject("registry"), repository, tag);
  const accept = "application/vnd.oci.image.manifest.v1+json";
  const response = await fetch(`http://${inject("registry")}/v2/${repository}/manifests/${digest}`, {
    headers: { accept },
  });
  const manifest = path.join(directory, "manifest.json");
  await writeFile(manifest, await response.text());
  const keys = await runCommand(["gpg", "--homedir", path.join(directory, "keys"), "--with-colons", "--list-keys"]);
  const fingerprint = /^fpr:+([0-9A-F]{40}):/mu.exec(keys)?.[1] ?? "";
  const folder = path.join(directory, "signatures", `${repository}@${digest.replace(":", "=")}`);
  await mkdir(folder, { recursive: true });
  const output = path.join(folder, "signature-1");
  const env = { GNUPGHOME: path.join(directory, "keys"), _CONTAINERS_ROOTLESS_UID: "1" };
  await runCommand(["skopeo", "standalone-sign", manifest, image, fingerprint, "--output", output], { env });
}

describe("with a policy that wants images signed", () => {
  const image = { image: "" };
  beforeAll(() => {
    image.image = berth.image("busybox");
  });

  test("one that is not is refused, in the words that kubelet looks for, and so is any other registry's", async () => {
    for (const name of [image.image, "registry.example/app:1"])
      await berth.expectFailure("PullImage", { image: { image: name } }, Code.Unknown, /^SignatureValidationFailed: /u);
    expect((await berth.call("ListImages")).images).toEqual([]);
  });

  test("one that skopeo has signed is pulled and runs, where the namespace's own policy does not refuse it", async () => {
    await sign(image.image);
    await berth.call("PullImage", { image });
    const pod = await berth.runPod();
    await berth.startContainer(pod, { image });
    const own = path.join(berth.workspace.directory, "policies/e2e.json");
    await writeFile(own, JSON.stringify({ default: [{ type: "reject" }] }));
    const config = containerConfig("refused", image.image);
    const request = { podSandboxId: pod.id, config, sandboxConfig: pod.config };
    await berth.expectFailure("CreateContainer", request, Code.Unknown, /^SignatureValidationFailed: /u);
    await rm(own);
    await berth.startContainer(pod, { image });
  });
});
