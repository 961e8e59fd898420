import { createCni } from "./cni.ts";
import { createFakePlugins, createTestLog, createTestNode, describeCniContract } from "./testing.ts";

describeCniContract("fake plugins", async () => {
  const files = await createTestNode();
  await files.install("bridge", "tuning", "portmap");
  const plugins = createFakePlugins();
  return {
    ...files,
    ipam: {},
    start: () =>
      createCni({
        config: { confDir: files.confDir, pluginDirs: [files.pluginDir], cacheDir: files.cacheDir },
        log: createTestLog(),
        run: plugins.run,
        watchDirectory: () => ({ [Symbol.asyncDispose]: () => Promise.resolve() }),
      }),
    createNetns: () => Promise.resolve("/proc/self/ns/net"),
    removeNetns: () => Promise.resolve(),
    leases: () => Promise.resolve(plugins.leases()),
  };
});
