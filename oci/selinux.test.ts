import { expect, test } from "vitest";
import { parseContainerContexts } from "./selinux.ts";

test("a policy's own contexts are those that its lxc_contexts names", () => {
  const text =
    'process = "system_u:system_r:svirt_lxc_net_t:s0"\ncontent = "a:b:c:s0"\nfile = "u:object_r:f_t:s0:c1"\n';
  expect(parseContainerContexts(text)).toEqual({
    process: "system_u:system_r:svirt_lxc_net_t:s0",
    file: "u:object_r:f_t:s0:c1",
  });
});

test("what lxc_contexts leaves out or garbles has its usual name", () => {
  const usual = {
    process: "system_u:system_r:container_t:s0",
    file: "system_u:object_r:container_file_t:s0",
  };
  expect(parseContainerContexts("")).toEqual(usual);
  expect(parseContainerContexts('process = "no context"\nsandbox_kvm_process = "a:b:c:d"\nfile = a:b:c:d\n')).toEqual(
    usual,
  );
});
