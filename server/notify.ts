import type { Logger } from "../cri-api/index.ts";
import { sendDatagram } from "../native/index.ts";
import type { Environment } from "./config.ts";

/** What systemd is told. @see https://www.freedesktop.org/software/systemd/man/252/sd_notify.html */
export type Notification = "READY=1" | "STOPPING=1" | "WATCHDOG=1";

export type Notify = (notification: Notification) => void;

/** Speaks to the systemd that started us, if one did and listens. What cannot be said is logged, and nothing else. */
export function createNotify({ notifySocket }: Pick<Environment, "notifySocket">, log: Logger): Notify {
  if (notifySocket === undefined) return () => undefined;
  return (notification) => {
    try {
      sendDatagram(notifySocket, notification);
    } catch (thrown) {
      log.warn({ notification, err: thrown }, "systemd could not be notified");
    }
  };
}
