import type { cri } from "../../cri-api/index.ts";
import { invalid, quote } from "./invalid.ts";

/** Numbers on x86 and arm64; the names without "SIG". */
const numbers: Readonly<Record<string, number>> = {
  HUP: 1,
  INT: 2,
  QUIT: 3,
  ILL: 4,
  TRAP: 5,
  ABRT: 6,
  IOT: 6,
  BUS: 7,
  FPE: 8,
  KILL: 9,
  USR1: 10,
  SEGV: 11,
  USR2: 12,
  PIPE: 13,
  ALRM: 14,
  TERM: 15,
  STKFLT: 16,
  CHLD: 17,
  CLD: 17,
  CONT: 18,
  STOP: 19,
  TSTP: 20,
  TTIN: 21,
  TTOU: 22,
  URG: 23,
  XCPU: 24,
  XFSZ: 25,
  VTALRM: 26,
  PROF: 27,
  WINCH: 28,
  IO: 29,
  POLL: 29,
  PWR: 30,
  SYS: 31,
  RTMIN: 34,
  RTMAX: 64,
};
const sigterm = 15;
const realTimeMin = 34;
const realTimeMax = 64;

/**
 * The number StopContainer sends: the CRI's signal, else the image's StopSignal ("SIGTERM", "TERM", "15",
 * "SIGRTMIN+3"), else SIGTERM.
 *
 * @throws {CriError} `InvalidArgument` for a stop signal of the image that is none.
 */
export function stopSignalNumber(stopSignal: cri.Signal, imageStopSignal: string): number {
  if (stopSignal !== "SIGNAL_RUNTIME_DEFAULT") {
    const number = parseSignal(stopSignal.slice("SIGNAL_".length).replace("PLUS", "+").replace("MAXMINUS", "MAX-"));
    if (number !== undefined) return number;
  }
  if (imageStopSignal === "") return sigterm;
  const number = parseSignal(imageStopSignal);
  if (number === undefined) throw invalid(`stop signal ${quote(imageStopSignal)} of the image is not a signal`);
  return number;
}

function parseSignal(text: string): number | undefined {
  if (/^[0-9]{1,3}$/.test(text)) return inRange(Number(text), 1);
  const match = /^(?:SIG)?(RTMIN|RTMAX)([+-])([0-9]{1,2})$/i.exec(text);
  if (match) {
    const [, base = "", sign, offset] = match;
    const start = numbers[base.toUpperCase()] ?? 0;
    return inRange(start + (sign === "+" ? Number(offset) : -Number(offset)), realTimeMin);
  }
  const name = text.toUpperCase().replace(/^SIG/, "");
  return Object.hasOwn(numbers, name) ? numbers[name] : undefined;
}

function inRange(number: number, min: number): number | undefined {
  return number >= min && number <= realTimeMax && number !== 32 && number !== 33 ? number : undefined;
}

/** The CRI's name of a stop signal's number, as ContainerStatus reports it; unknown numbers are the runtime default. */
export function stopSignalName(number: number): cri.Signal {
  if (number >= realTimeMin && number <= realTimeMax) return realTimeName(number);
  const name = Object.keys(numbers).find((candidate) => numbers[candidate] === number);
  return name === undefined ? "SIGNAL_RUNTIME_DEFAULT" : (`SIGNAL_SIG${name}` as cri.Signal);
}

function realTimeName(number: number): cri.Signal {
  if (number === realTimeMin) return "SIGNAL_SIGRTMIN";
  if (number === realTimeMax) return "SIGNAL_SIGRTMAX";
  const name = number - realTimeMin <= 15 ? `RTMINPLUS${number - realTimeMin}` : `RTMAXMINUS${realTimeMax - number}`;
  return `SIGNAL_SIG${name}` as cri.Signal;
}
