/**
 * What the page says about being reachable and looked at. The listeners are on it only while somebody watches.
 * Outside a browser nothing ever happens here, unless the application tells (`reportVisibility`).
 */

/**
 * `back`: now is a good moment to try again (online again, in view again, back from the cache). `gone`: the page is
 * being left or frozen, and may come back from the cache. `less`: it went offline or out of view.
 */
export type PageChange = "back" | "gone" | "less";
export type WakeListener = (change: PageChange) => void;

const listeners = new Set<WakeListener>();
const WINDOW_EVENTS = ["online", "offline", "pageshow", "pagehide"] as const;
const DOCUMENT_EVENTS = ["visibilitychange", "freeze", "resume"] as const;

let told: boolean | undefined;

/** False only when the browser is sure. (Servers on the same machine can be reached all the same.) */
export const isOnline = (): boolean => globalThis.navigator?.onLine !== false;

export const isHidden = (): boolean =>
  told === undefined ? globalThis.document?.visibilityState === "hidden" : !told;

/** Whether somebody could be waiting: time that is spent offline or hidden is held against nobody. */
export const isAwake = (): boolean => isOnline() && !isHidden();

/** For hosts without a document, such as React Native: whether the application is in the foreground. */
export function reportVisibility(isVisible: boolean): void {
  told = isVisible;
  tell(isVisible ? "back" : "less");
}

export function watchWake(listener: WakeListener): () => void {
  if (listeners.size === 0) listen("addEventListener");
  listeners.add(listener);
  return () => {
    if (listeners.delete(listener) && listeners.size === 0) listen("removeEventListener");
  };
}

function listen(verb: "addEventListener" | "removeEventListener"): void {
  // Neither exists in Node; the first one also exists in workers, which have no document.
  if (typeof globalThis[verb] === "function")
    for (const name of WINDOW_EVENTS) globalThis[verb](name, notify);
  for (const name of DOCUMENT_EVENTS) globalThis.document?.[verb]?.(name, notify);
}

function notify({ type }: Event): void {
  if (type === "pagehide" || type === "freeze") tell("gone");
  else tell(type === "offline" || (type === "visibilitychange" && isHidden()) ? "less" : "back");
}

function tell(change: PageChange): void {
  for (const listener of [...listeners]) listener(change);
}
