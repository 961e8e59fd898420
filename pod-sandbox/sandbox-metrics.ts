import type { Call, cri, Init } from "../cri-api/index.ts";
import { readBlockDeviceNames, readCgroupCounters } from "../oci/index.ts";
import type { CgroupCounters } from "../oci/index.ts";
import { containerSubjects } from "./container-stats.ts";
import { nowNs } from "./clock.ts";
import { isLive } from "./container.ts";
import type { LiveContainer } from "./container.ts";
import type { Host } from "./host.ts";
import { metricFamilies } from "./metric-families.ts";
import type { Measured } from "./metric-families.ts";
import { loopback, ownCgroupSubjects, readNetworks } from "./sandbox-stats.ts";
import type { Sandbox } from "./sandbox.ts";
import type { Subject } from "./stats-reader.ts";

/** What every metric is labelled with, before the labels of its own. */
const commonLabelKeys = ["id", "image", "namespace", "pod", "container"] as const;
/** The name by which cAdvisor's metrics tell the pod from its containers. */
const podRow = "POD";

const descriptors = metricFamilies.map(({ name, help, labelKeys }) => ({
  name,
  help,
  labelKeys: [...commonLabelKeys, ...labelKeys],
}));

/** All metrics that may ever be listed; the same as long as the daemon runs. */
export async function listMetricDescriptors(): Promise<Init<cri.ListMetricDescriptorsResponse>> {
  return { descriptors };
}

/**
 * Metrics of what runs, measured as they are asked for: of each pod its network and its own cgroup, of each container its
 * cgroup, its limits and what it wrote. Label values stand in the order of the descriptors' keys.
 */
export async function listPodSandboxMetrics(
  _call: Call,
  _request: cri.ListPodSandboxMetricsRequest,
  host: Host,
): Promise<Init<cri.ListPodSandboxMetricsResponse>> {
  const bySandbox = Map.groupBy(host.containers.list().filter(isLive), (container) => container.sandboxId);
  const sandboxes = host.sandboxes.list().filter(({ id, state }) => state === "ready" || bySandbox.has(id));
  const [counters, networks, deviceNames] = await Promise.all([
    readCounters(
      [...ownCgroupSubjects(sandboxes, host), ...containerSubjects([...bySandbox.values()].flat(), host)],
      host,
    ),
    readNetworks(sandboxes, host),
    readBlockDeviceNames(),
  ]);
  const readAtNs = nowNs();
  const measure = (id: string): Measured => ({ ...nothing, counters: counters.get(id), nowNs: readAtNs, deviceNames });
  return {
    podMetrics: sandboxes.map((sandbox) => ({
      podSandboxId: sandbox.id,
      metrics: podMetrics(sandbox, { ...measure(sandbox.id), interfaces: networks.get(sandbox.id) ?? [] }),
      containerMetrics: (bySandbox.get(sandbox.id) ?? []).map((container) => ({
        containerId: container.id,
        metrics: containerMetrics(container, sandbox, {
          ...measure(container.id),
          layer: host.images.rootfsUsage(container.id),
        }),
      })),
    })),
  };
}

const nothing = { interfaces: [], resources: undefined, layer: undefined, startedAtNs: 0n } as const;

async function readCounters(subjects: readonly Subject[], host: Host): Promise<ReadonlyMap<string, CgroupCounters>> {
  const places = await Promise.all(subjects.map((subject) => host.stats.locate(subject)));
  const found = subjects.flatMap(({ id }, index) => {
    const cgroups = places[index];
    return cgroups ? [{ id, cgroups }] : [];
  });
  const counters = await readCgroupCounters(
    found.map(({ cgroups }) => cgroups),
    host.facts.hugepageSizes ?? [],
  );
  return new Map(
    found.flatMap(({ id }, index) => {
      const ofSubject = counters[index];
      return ofSubject ? [[id, ofSubject] as const] : [];
    }),
  );
}

function podMetrics(sandbox: Sandbox, measured: Measured): readonly Init<cri.Metric>[] {
  const { name = "", namespace = "" } = sandbox.config.metadata ?? {};
  const interfaces = measured.interfaces.filter((each) => each.name !== loopback);
  return toCriMetrics([sandbox.id, "", namespace, name, podRow], {
    ...measured,
    interfaces,
    startedAtNs: sandbox.createdAtNs,
  });
}

function containerMetrics(
  { id, config, resources, ...container }: LiveContainer,
  sandbox: Sandbox,
  measured: Measured,
): readonly Init<cri.Metric>[] {
  const { name = "", namespace = "" } = sandbox.config.metadata ?? {};
  const image = config.image?.userSpecifiedImage || (config.image?.image ?? "");
  const startedAtNs = container.state === "running" ? container.startedAtNs : 0n;
  return toCriMetrics([id, image, namespace, name, config.metadata?.name ?? ""], {
    ...measured,
    resources,
    startedAtNs,
  });
}

function toCriMetrics(common: readonly string[], measured: Measured): readonly Init<cri.Metric>[] {
  const metrics: Init<cri.Metric>[] = [];
  for (const { name, type: metricType, values } of metricFamilies) {
    for (const { labels, value } of values(measured)) {
      if (value === undefined) continue;
      const labelValues = labels.length === 0 ? common : [...common, ...labels];
      metrics.push({ name, metricType, labelValues, value: { value } }); // no timestamp: it is as of now
    }
  }
  return metrics;
}
