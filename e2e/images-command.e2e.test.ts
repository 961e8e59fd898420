import { appendFile, readdir } from "node:fs/promises";
import path from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { useDaemon } from "./harness/fixture.ts";
import { startContainerd } from "./harness/containerd.ts";
import { nodeProgram, repository } from "./harness/repository.ts";
import { runCommand, tryCommand } from "./harness/run-command.ts";

const berth = useDaemon({ pull: [] });

/** Runs `berth images …` against the daemon of this file. */
function images(...args: readonly string[]): ReturnType<typeof tryCommand> {
  return tryCommand([
    nodeProgram,
    path.join(repository, "server/main.ts"),
    "images",
    ...args,
    "--socket",
    berth.daemon.socketPath,
  ]);
}

async function succeed(...args: readonly string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await images(...args);
  expect(exitCode, stderr).toBe(0);
  return stdout;
}

async function removeImages(): Promise<void> {
  for (const { id } of (await berth.call("ListImages")).images)
    await berth.call("RemoveImage", { image: { image: id } });
}

afterEach(removeImages);

test("images are pulled with progress, listed, inspected and removed", async () => {
  const name = berth.image("busybox");
  const { stdout, stderr, exitCode } = await images("pull", name);
  expect(exitCode, stderr).toBe(0);
  const id = stdout.trim();
  expect(await succeed("list")).toMatch(
    new RegExp(String.raw`^IMAGE +ID +SIZE\n${name} +${id.slice(7, 19)} +[\d.]+ [kM]B\n$`, "u"),
  );
  expect(JSON.parse(await succeed("list", "--json"))).toMatchObject([{ id, repoTags: [name], pinned: false }]);
  expect(JSON.parse(await succeed("inspect", id.slice(7, 17)))).toMatchObject({
    status: { id },
    imageSpec: { os: "linux" },
  });
  expect(await succeed("remove", name)).toBe(`removed ${name}\nremoved ${id}\n`);
  expect((await berth.call("ListImages")).images).toEqual([]);
});

test("a pull tells its progress as JSON, and its last line the image's id", async () => {
  const lines = (await succeed("pull", "--json", berth.image("busybox"))).trim().split("\n");
  const messages = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  const { images: known } = await berth.call("ListImages");
  expect(messages.at(-1)).toEqual({ image: berth.image("busybox"), id: known[0]?.id });
  for (const progress of messages.slice(0, -1))
    expect(progress).toMatchObject({ image: berth.image("busybox"), phase: expect.any(String) });
});

test("on a terminal a pull's bar is gone before its result stands there", async () => {
  const argv = [nodeProgram, path.join(repository, "server/main.ts"), "images", "pull", berth.image("busybox")];
  const command = [...argv, "--socket", berth.daemon.socketPath].join(" ");
  const shown = await runCommand(["script", "--quiet", "--return", "--command", command, "/dev/null"]);
  const last = shown.trimEnd().split("\n").at(-1) ?? "";
  expect(shown).toContain("\r\u001B[K");
  expect(last.split("\u001B[K").at(-1)).toMatch(/^sha256:[0-9a-f]{64}\r?$/u);
});

test("a pull that fails says which host was tried", async () => {
  const { exitCode, stdout, stderr } = await images("pull", `${berth.image("busybox")}-absent`);
  expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: "" });
  expect(stderr).toContain(berth.image("busybox").split("/")[0]);
});

test("prune removes what no container uses, and by age only what is old enough", async () => {
  await succeed("pull", berth.image("busybox"));
  await succeed("pull", berth.image("configured"));
  const pod = await berth.runPod();
  await berth.createContainer(pod);
  expect(await succeed("prune", "--older-than", "1h")).toContain("0 B freed");
  expect(await succeed("prune")).toContain(`removed ${berth.image("configured")}\n`);
  const { images: left } = await berth.call("ListImages");
  expect(left.flatMap((image) => image.repoTags)).toEqual([berth.image("busybox")]);
  await berth.removePod(pod.id);
});

test("verify tells what has changed on the disk, and repairs it from the registry", async () => {
  const name = berth.image("busybox");
  await succeed("pull", name);
  expect(await succeed("verify")).toMatch(/^1 whole \([\d.]+ [kM]B\)\n$/u);
  const layers = path.join(berth.workspace.root, "layers");
  const [layer = ""] = await readdir(layers);
  await appendFile(path.join(layers, layer, "diff/etc/passwd"), "intruder::0:0:::\n");
  const { exitCode, stdout, stderr } = await images("verify", name);
  expect({ exitCode, stderr }).toEqual({ exitCode: 1, stderr: expect.stringContaining("1 layers are damaged") });
  expect(stdout).toMatch(/^sha256:[0-9a-f]{64} is damaged: .*etc\/passwd.*\n1 damaged /u);
  expect(JSON.parse(await succeed("verify", "--repair", "--json"))).toMatchObject({ outcome: "repaired" });
  expect(await succeed("verify")).toContain("1 whole");
});

test.each([
  [["remove", "registry.example/none:1"], 'image "registry.example/none:1" not found'],
  [["inspect", "Not//valid"], "invalid image reference"],
])("%j fails with a reason", async (args, text) => {
  const { exitCode, stdout, stderr } = await images(...args);
  expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: "" });
  expect(stderr).toContain(text);
  expect(stderr).not.toMatch(/\n\s+at /u);
});

/** Skopeo with no memory of its own on the machine, and images for whatever platform. */
function skopeo(...args: readonly string[]): Promise<string> {
  const env = { _CONTAINERS_ROOTLESS_UID: "1", XDG_DATA_HOME: path.join(berth.workspace.directory, "skopeo") };
  return runCommand(["skopeo", "--insecure-policy", "--tmpdir", berth.workspace.directory, ...args], { env });
}

describe("images travel as archives", () => {
  const at = (file: string): string => path.join(berth.workspace.directory, file);
  const idOf = async (image: string): Promise<string | undefined> =>
    (await berth.call("ImageStatus", { image: { image } })).image?.id;

  test("from Berth to skopeo and umoci and back, with the same id", async () => {
    const name = berth.image("layers");
    await succeed("pull", name);
    const id = await idOf(name);
    await succeed("export", name, "-o", at("berth.tar"));
    await removeImages();
    for (const [kind, target] of [
      ["docker-archive", `docker-archive:${at("docker.tar")}:registry.example/team/layers:docker`],
      ["oci-archive", `oci-archive:${at("oci.tar")}:registry.example/team/layers:oci`],
    ] as const) {
      await skopeo("copy", "--quiet", `${kind}:${at("berth.tar")}`, target);
      await succeed("import", target.split(":")[1] ?? "");
      expect(await idOf(`registry.example/team/layers:${kind.split("-")[0]}`)).toBe(id); // the config's digest
      await removeImages();
    }
    await runCommand(["mkdir", at("layout")]);
    await runCommand(["tar", "-xf", at("berth.tar"), "-C", at("layout")]);
    await runCommand(["umoci", "unpack", "--image", `${at("layout")}:1`, at("bundle")]);
    expect(await runCommand(["cat", at("bundle/rootfs/odd/kept")])).toBe("kept");
  });

  test("through standard input and output, compressed, and run", async () => {
    const name = berth.image("busybox");
    await succeed("pull", name);
    const id = await idOf(name);
    const command = `${nodeProgram} ${path.join(repository, "server/main.ts")} images`;
    const flags = `--socket ${berth.daemon.socketPath}`;
    await runCommand(["sh", "-c", `${command} export ${name} ${flags} | gzip -1 > ${at("image.tar.gz")}`]);
    await removeImages();
    await runCommand(["sh", "-c", `${command} import ${flags} < ${at("image.tar.gz")}`]);
    expect(await idOf(name)).toBe(id);
    const pod = await berth.runPod();
    const containerId = await berth.startContainer(pod);
    expect(await berth.shell(containerId, "echo alive")).toBe("alive");
    await berth.removePod(pod.id);
  });

  test("from Berth to containerd and back, and from containerd's own pulls, several in one archive", async () => {
    await using containerd = await startContainerd(at("containerd"));
    const names = [berth.image("layers"), berth.image("busybox")];
    for (const name of names) await succeed("pull", name);
    const ids = await Promise.all(names.map(idOf));
    await succeed("export", ...names, "-o", at("both.tar"));
    await removeImages();
    await containerd.ctr("images", "import", "--no-unpack", at("both.tar"));
    await containerd.ctr("images", "export", at("ctr.tar"), ...names);
    await succeed("import", at("ctr.tar"));
    expect(await Promise.all(names.map(idOf))).toEqual(ids);
    await removeImages();
    for (const name of [...names, berth.image("index")]) await containerd.ctr("content", "fetch", "--plain-http", name);
    await containerd.ctr("images", "export", at("fetched.tar"), ...names, berth.image("index"));
    await runCommand(["gzip", "-1", at("fetched.tar")]);
    await succeed("import", at("fetched.tar.gz"));
    expect(await Promise.all(names.map(idOf))).toEqual(ids);
    const indexId = await idOf(berth.image("index"));
    await removeImages();
    await succeed("pull", berth.image("index"));
    expect(await idOf(berth.image("index"))).toBe(indexId);
  });

  test("all platforms of a name, under one index, between a registry, skopeo, Berth and containerd", async () => {
    const name = berth.image("index");
    const archived = `oci-archive:${at("index.tar")}:${name}`;
    await skopeo("copy", "--quiet", "--all", "--src-tls-verify=false", `docker://${name}`, archived);
    await succeed("import", "--all-platforms", at("index.tar"));
    const idsNow = async (): Promise<string[]> =>
      (await berth.call("ListImages")).images.map(({ id }) => id).toSorted();
    const ids = await idsNow();
    expect(ids).toHaveLength(2);
    await succeed("export", "--all-platforms", name, "-o", at("platforms.tar"));
    await removeImages();

    await using containerd = await startContainerd(at("containerd-index"));
    await containerd.ctr("images", "import", "--no-unpack", "--all-platforms", at("platforms.tar"));
    await containerd.ctr("images", "export", "--all-platforms", at("ctr-platforms.tar"), name);
    await succeed("import", "--all-platforms", at("ctr-platforms.tar"));
    expect(await idsNow()).toEqual(ids);
    await removeImages();

    const copy = `docker://${name}-copy`;
    const insecure = "--dest-tls-verify=false";
    await skopeo("copy", "--quiet", "--all", insecure, `oci-archive:${at("platforms.tar")}`, copy);
    const { manifests } = JSON.parse(await skopeo("inspect", "--tls-verify=false", "--raw", copy)) as {
      readonly manifests: readonly { readonly platform: { readonly architecture: string } }[];
    };
    expect(new Set(manifests.map(({ platform }) => platform.architecture)).size).toBe(2);
    await succeed("pull", `${name}-copy`);
    expect(ids).toEqual(expect.arrayContaining(await idsNow()));
  });

  test("an artifact as an OCI layout that skopeo copies to a registry and back", async () => {
    const name = berth.image("artifact");
    await succeed("pull", name);
    const id = await idOf(name);
    await succeed("export", name, "-o", at("artifact.tar"));
    await removeImages();
    const copy = `${name}-copy`;
    await skopeo("copy", "--quiet", "--dest-tls-verify=false", `oci-archive:${at("artifact.tar")}`, `docker://${copy}`);
    await succeed("pull", copy);
    expect(await idOf(copy)).toBe(id);
    await removeImages();
    await succeed("import", at("artifact.tar"));
    expect(await idOf(name)).toBe(id);
  });

  test("what is refused leaves nothing", async () => {
    const before = await berth.findTraces();
    await runCommand(["sh", "-c", `head -c 100000 /dev/urandom > ${at("noise")}`]);
    const { exitCode, stderr } = await images("import", at("noise"));
    expect({ exitCode, stderr }).toMatchObject({
      exitCode: 1,
      stderr: expect.stringMatching(/^berth: cannot import the archive: .+\n$/u) as string,
    });
    expect(await images("export", berth.image("busybox"), "-o", at("noise"))).toMatchObject({
      exitCode: 1,
      stderr: expect.stringMatching(/^berth: EEXIST: file already exists.+\n$/u) as string,
    });
    await runCommand(["rm", at("noise")]);
    await berth.expectNothingNew(before);
  });
});
