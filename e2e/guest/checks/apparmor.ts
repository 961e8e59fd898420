import assert from "node:assert/strict";
import type { Report } from "../../harness/report.ts";
import { type Node, shell, startContainer } from "./node.ts";

const profileOf = (node: Node, id: string): Promise<string> =>
  shell(node, id, "cat /proc/1/attr/current").then(({ text }) => text);
const sysAdmin = { capabilities: { addCapabilities: ["SYS_ADMIN"] }, seccomp: { profileType: "Unconfined" } } as const;
const mountSomething = "mkdir -p /tmp/m && mount -t tmpfs none /tmp/m";

/** Berth's default profile, and the ways around it. */
export async function checkApparmor(node: Node, report: Report): Promise<void> {
  await report.check("silence and RuntimeDefault mean the default profile", async () => {
    const silent = await startContainer(node, "silent");
    assert.equal(await profileOf(node, silent), "berth-default (enforce)");
    const asked = await startContainer(node, "asked", {
      securityContext: { apparmor: { profileType: "RuntimeDefault" } },
    });
    assert.equal(await profileOf(node, asked), "berth-default (enforce)");
    const exec = await shell(node, asked, "cat /proc/self/attr/current");
    assert.equal(exec.text, "berth-default (enforce)");
  });
  await report.check("the default profile forbids mounts and writes to the kernel's files", async () => {
    const id = await startContainer(node, "confined", { securityContext: sysAdmin });
    assert.match((await shell(node, id, mountSomething)).text, /denied/iu);
    assert.notEqual((await shell(node, id, "echo 1 > /proc/sys/vm/drop_caches")).exitCode, 0);
    assert.equal((await shell(node, id, "echo ok > /tmp/file && cat /tmp/file && kill -0 1 && ps")).exitCode, 0);
  });
  await report.check("Unconfined means none", async () => {
    const securityContext = { ...sysAdmin, apparmor: { profileType: "Unconfined" } } as const;
    const id = await startContainer(node, "unconfined", { securityContext });
    assert.equal(await profileOf(node, id), "unconfined");
    assert.deepEqual(await shell(node, id, mountSomething), { exitCode: 0, text: "" });
  });
  await report.check("a privileged container is not confined", async () => {
    const id = await startContainer(node, "privileged", { securityContext: { privileged: true } });
    assert.doesNotMatch(await profileOf(node, id), /enforce/u);
  });
  await report.check("a profile that is not loaded is named as the reason", async () => {
    const apparmor = { profileType: "Localhost", localhostRef: "no-such-profile" } as const;
    await assert.rejects(startContainer(node, "unloaded", { securityContext: { apparmor } }), /not loaded/u);
  });
}
