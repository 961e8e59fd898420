import type { berth } from "../../cri-api/index.ts";
import { formatBytes, type Terminal } from "./output.ts";

/** Shows how far something has come. */
export interface ProgressView extends Disposable {
  show(progress: berth.PullProgress): void;
}

const barWidth = 24;
/** A log that nobody watches hears of it so often. */
const lineIntervalMs = 5000;

function secondsOf(progress: berth.PullProgress): string {
  return `${Math.floor(Number(progress.elapsedMs) / 1000)}s`;
}

/** `[========>      ]`; empty while nobody knows how much there is. */
function barOf({ downloadedBytes, totalBytes }: berth.PullProgress): string {
  const share = totalBytes === 0n ? 0 : Math.min(Number(downloadedBytes) / Number(totalBytes), 1);
  const filled = Math.round(share * barWidth);
  return `[${`${"=".repeat(filled)}${filled < barWidth ? ">" : ""}`.slice(0, barWidth).padEnd(barWidth)}]`;
}

function factsOf(progress: berth.PullProgress): string {
  const { phase, host, layers, layersDone, downloadedBytes, totalBytes, bytesPerSecond } = progress;
  const from = host === "" ? "" : ` from ${host}`;
  if (phase === "resolving") return `${phase}${from}, ${secondsOf(progress)}`;
  const bytes = `${formatBytes(downloadedBytes)} of ${formatBytes(totalBytes)}`;
  return `${layersDone}/${layers} layers, ${bytes}, ${formatBytes(bytesPerSecond)}/s${from}, ${secondsOf(progress)}`;
}

/** One line that is drawn over and over, and wiped at the end. */
function drawnBar({ err }: Terminal): ProgressView {
  return {
    show(progress) {
      const columns = err.columns || 80; // 0: a terminal that does not know
      const line = `${barOf(progress)} ${factsOf(progress)}`.slice(0, Math.max(columns - 1, 20));
      err.write(`\r\u001B[K${line}`);
    },
    [Symbol.dispose]: () => void err.write("\r\u001B[K"),
  };
}

function plainLines({ err }: Terminal): ProgressView {
  let [lastMs, lastPhase] = [0, ""];
  return {
    show(progress) {
      const nowMs = performance.now();
      if (progress.phase === lastPhase && nowMs - lastMs < lineIntervalMs) return;
      [lastMs, lastPhase] = [nowMs, progress.phase];
      err.write(`${progress.image}: ${factsOf(progress)}\n`);
    },
    [Symbol.dispose]: () => undefined,
  };
}

/** A bar on a terminal, else a line at each change and every five seconds. */
export function createProgressView(terminal: Terminal): ProgressView {
  return terminal.err.isTTY === true ? drawnBar(terminal) : plainLines(terminal);
}
