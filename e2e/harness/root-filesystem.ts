import { chmod, copyFile, link, mkdir, readdir, realpath, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { packagesDirectory } from "./repository.ts";
import { runCommand } from "./run-command.ts";

/** One moment for everything that goes into an image, so that the same packages give the same digests. */
export const imageEpochSeconds = 1_700_000_000;
export const imageCreated = new Date(imageEpochSeconds * 1000).toISOString();

const passwd = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/:/bin/sh
web:x:1000:1000:web:/home/web:/bin/sh
www-data:x:33:33:www-data:/www:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/sh
`;
const group = `root:x:0:
daemon:x:1:
audio:x:29:web
www-data:x:33:
web:x:1000:
extra:x:2000:web
nogroup:x:65534:
`;
// Debian's busybox has neither of the two; conformance tests call them.
const scripts = {
  pgrep: `#!/bin/sh
found=1
for f in /proc/[0-9]*/comm; do
  read -r name 2>/dev/null < "$f" || continue
  case "$name" in *"$1"*) f=\${f%/comm}; echo "\${f#/proc/}"; found=0 ;; esac
done
exit $found
`,
  ipcs: `#!/bin/sh
echo
echo "------ Shared Memory Segments --------"
cat /proc/sysvipc/shm
`,
};

/**
 * Lays a small Debian root filesystem: busybox with its applets as hard links (a mask over /bin/ls must not hide
 * busybox itself), the C library, users. Everything comes from the downloaded Debian packages.
 */
export async function layRootFilesystem(directory: string): Promise<void> {
  const unpacked = `${directory}.packages`;
  await mkdir(unpacked, { recursive: true });
  for (const name of (await readdir(packagesDirectory)).filter((name) => name.endsWith(".deb")).sort()) {
    await runCommand(["dpkg", "-x", path.join(packagesDirectory, name), unpacked]);
  }
  for (const name of ["bin", "etc", "home/web", "dev", "proc", "sys", "root", "run", "var/run", "var/log", "www"]) {
    await makeDirectory(directory, name, 0o755);
  }
  await makeDirectory(directory, "tmp", 0o1777);
  await copyLibraries(unpacked, directory);
  await copyBusybox(unpacked, directory);
  await writeFiles(directory, { "etc/passwd": passwd, "etc/group": group, "www/index.html": "<h1>Berth</h1>\n" });
  for (const [name, text] of Object.entries(scripts)) await writeProgram(directory, `bin/${name}`, text);
  await runCommand(["chown", "-R", "1000:1000", path.join(directory, "home/web")]);
  await rm(unpacked, { recursive: true });
}

/** Writes text files (mode 0644) below a root filesystem, making their folders. */
export async function writeFiles(root: string, files: Readonly<Record<string, string>>): Promise<void> {
  for (const [name, text] of Object.entries(files)) {
    await makeDirectory(root, path.dirname(name), 0o755);
    await writeFile(path.join(root, name), text, { mode: 0o644 });
  }
}

async function writeProgram(root: string, name: string, text: string): Promise<void> {
  await rm(path.join(root, name), { force: true });
  await writeFile(path.join(root, name), text);
  await chmod(path.join(root, name), 0o755);
}

async function makeDirectory(root: string, name: string, mode: number): Promise<void> {
  await mkdir(path.join(root, name), { recursive: true, mode: 0o755 });
  if (name !== ".") await chmod(path.join(root, name), mode);
}

async function copyLibraries(unpacked: string, root: string): Promise<void> {
  const [multiarch = ""] = (await readdir(path.join(unpacked, "lib"))).filter((name) => name.endsWith("-linux-gnu"));
  const libraries = path.join(unpacked, "lib", multiarch);
  const loader = (await readdir(libraries)).find((name) => name.startsWith("ld-linux"));
  if (loader === undefined) throw new Error("the libc6 package has no program loader");
  await makeDirectory(root, `lib/${multiarch}`, 0o755);
  for (const name of ["libc.so.6", "libresolv.so.2"]) {
    await copyProgram(path.join(libraries, name), path.join(root, "lib", multiarch, name));
  }
  // Where the kernel looks for it: /lib64 on amd64, /lib on arm64.
  const place = loader.includes("x86-64") ? "lib64" : "lib";
  await makeDirectory(root, place, 0o755);
  await copyProgram(path.join(libraries, loader), path.join(root, place, loader));
}

async function copyBusybox(unpacked: string, root: string): Promise<void> {
  const busybox = path.join(root, "bin/busybox");
  await copyProgram(path.join(unpacked, "bin/busybox"), busybox);
  const applets = await runCommand(["chroot", root, "/bin/busybox", "--list"]);
  for (const name of applets.split("\n")) {
    if (name !== "busybox" && name !== "") await link(busybox, path.join(root, "bin", name));
  }
}

async function copyProgram(from: string, to: string): Promise<void> {
  await copyFile(await realpath(from), to);
  await chmod(to, 0o755);
}

/** Packs a folder into a tar archive that is the same every time: sorted names, one modification time, real owners. */
export async function packLayer(directory: string, tarFile: string): Promise<string> {
  await runCommand([
    "tar",
    "--create",
    "--sort=name",
    "--numeric-owner",
    `--mtime=@${imageEpochSeconds}`,
    "--format=posix",
    "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
    "--xattrs",
    "--xattrs-include=*",
    `--file=${tarFile}`,
    `--directory=${directory}`,
    ".",
  ]);
  return tarFile;
}
