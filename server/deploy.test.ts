import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { configTemplate } from "./config-template.ts";

const read = (name: string): Promise<string> => readFile(new URL(`../deploy/${name}`, import.meta.url), "utf8");

/** The value of a key that the template sets. */
function defaultOf(key: string): string {
  return new RegExp(`^${key} = "(.*)"$`, "m").exec(configTemplate)?.[1] ?? "";
}

test("berth.toml is what --config-default prints", async () => {
  expect(await read("berth.toml")).toBe(configTemplate);
});

test("crictl.yaml names the default socket for both services", async () => {
  const endpoint = `unix://${defaultOf("socket")}`;
  const text = await read("crictl.yaml");
  expect(text).toContain(`\nruntime-endpoint: ${endpoint}\n`);
  expect(text).toContain(`\nimage-endpoint: ${endpoint}\n`);
});

test("the sample network is one that Debian 12's plugins take, with host ports", async () => {
  expect(JSON.parse(await read("10-berth-bridge.conflist"))).toMatchObject({
    cniVersion: "1.0.0",
    name: "berth",
    plugins: [{ type: "bridge" }, { type: "portmap", capabilities: { portMappings: true } }],
  });
});

test("the unit leaves containers alone when the daemon stops, and starts it before kubelet", async () => {
  const lines = (await read("berth.service")).split("\n");
  for (const line of [
    "Type=notify",
    "KillMode=process",
    "Delegate=yes",
    "OOMScoreAdjust=-999",
    "Restart=on-failure",
    "LimitNOFILE=1048576",
    "TasksMax=infinity",
    "Before=kubelet.service",
  ]) {
    expect(lines).toContain(line);
  }
});
