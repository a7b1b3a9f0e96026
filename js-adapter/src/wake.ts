/**
 * What the browser says about being reachable and looked at: `online`, `offline`, `pageshow`, `visibilitychange`.
 * The listeners are on the page only while somebody watches. Outside a browser nothing ever happens here.
 */

/** `woke` is true when now is a good moment to try again: back online, back from the cache, back in view. */
export type WakeListener = (woke: boolean) => void;

const listeners = new Set<WakeListener>();
const PAGE_EVENTS = ["online", "offline", "pageshow"] as const;

/** False only when the browser is sure. (Servers on the same machine can be reached all the same.) */
export const isOnline = (): boolean => globalThis.navigator?.onLine !== false;

const isHidden = (): boolean => globalThis.document?.visibilityState === "hidden";

/** Whether somebody could be waiting: time that is spent offline or hidden is held against nobody. */
export const isAwake = (): boolean => isOnline() && !isHidden();

export function watchWake(listener: WakeListener): () => void {
  if (listeners.size === 0) listen("addEventListener");
  listeners.add(listener);
  return () => {
    if (listeners.delete(listener) && listeners.size === 0) listen("removeEventListener");
  };
}

function listen(verb: "addEventListener" | "removeEventListener"): void {
  // Neither exists in Node; the first one also exists in workers, which have no document.
  if (typeof globalThis[verb] === "function") for (const name of PAGE_EVENTS) globalThis[verb](name, notify);
  globalThis.document?.[verb]("visibilitychange", notify);
}

function notify(event: Event): void {
  const woke = event.type !== "offline" && !(event.type === "visibilitychange" && isHidden());
  for (const listener of [...listeners]) listener(woke);
}
