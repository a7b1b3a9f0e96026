/**
 * The network of this page, with a switch. While the switch says offline every request is refused and every open
 * response is cut in the middle, the way a browser does it: the transport cannot tell it from a tunnel.
 */
import { createStore } from "./store";

export const offline = createStore(false);

const cuts = new Set<() => void>();

export function goOffline(): void {
  offline.set(true);
  for (const cut of [...cuts]) cut();
  window.dispatchEvent(new Event("offline"));
}

export function goOnline(): void {
  offline.set(false);
  window.dispatchEvent(new Event("online"));
}

/** What a response of an event stream tells whoever watches it pass by. */
export interface Wiretap {
  opened?(request: Request, response: Response): void;
  cursor?(request: Request, cursor: string): void;
  cut?(request: Request): void;
}

const taps = new Set<Wiretap>();

/** Watch every event stream that passes through `switchedFetch`. */
export function tap(wiretap: Wiretap): () => void {
  taps.add(wiretap);
  return () => taps.delete(wiretap);
}

/** `fetch`, subject to the switch. */
export const switchedFetch: typeof fetch = async (input, init) => {
  if (offline.get()) throw new TypeError("Failed to fetch");
  const request = new Request(input, init);
  const line = new AbortController();
  const cut = () => line.abort();
  const abort = () => line.abort(request.signal.reason);
  request.signal.addEventListener("abort", abort);
  cuts.add(cut);
  const release = () => {
    cuts.delete(cut);
    request.signal.removeEventListener("abort", abort);
  };
  let response: Response;
  try {
    response = await fetch(request, { signal: line.signal });
  } catch (error) {
    release();
    throw offline.get() && !request.signal.aborted ? new TypeError("Failed to fetch") : error;
  }
  // Chromium gives a 204 a body, and then refuses to build one like it.
  if (response.body === null || response.status === 204) {
    release();
    return response;
  }
  for (const wiretap of taps) wiretap.opened?.(request, response);
  const body = passThrough(response.body, request, line.signal, release);
  return new Response(body, {
    status: response.status,
    statusText: response.statusText,
    headers: response.headers,
  });
};

/** The same bytes, cut when the line is cut. Reports the cursors of an event stream on their way. */
function passThrough(
  source: ReadableStream<Uint8Array>,
  request: Request,
  line: AbortSignal,
  release: () => void,
): ReadableStream<Uint8Array> {
  const reader = source.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let cancelled = false;
  const observe = (bytes: Uint8Array) => {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const text of lines) {
      if (text.startsWith("id: ")) for (const wiretap of taps) wiretap.cursor?.(request, text.slice(4));
    }
  };
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { done, value } = await reader.read();
        if (cancelled) return;
        if (done) {
          release();
          controller.close();
          return;
        }
        controller.enqueue(value);
        observe(value);
      } catch (error) {
        if (cancelled) return;
        release();
        const detached = request.signal.aborted;
        if (!detached) for (const wiretap of taps) wiretap.cut?.(request);
        controller.error(line.aborted && !detached ? new TypeError("network error") : error);
      }
    },
    async cancel(reason) {
      cancelled = true;
      release();
      await reader.cancel(reason);
    },
  });
}
