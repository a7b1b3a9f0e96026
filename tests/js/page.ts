/** As much of a browser page as the transport looks at. */
import { vi } from "vitest";

class CountingTarget extends EventTarget {
  listening = 0;
  override addEventListener(...args: Parameters<EventTarget["addEventListener"]>): void {
    this.listening++;
    super.addEventListener(...args);
  }
  override removeEventListener(...args: Parameters<EventTarget["removeEventListener"]>): void {
    this.listening--;
    super.removeEventListener(...args);
  }
}

class Document extends CountingTarget {
  visibilityState = "visible";
}

/** Puts a page around the test. It goes away with `vi.unstubAllGlobals()`. */
export function openPage() {
  const window = new CountingTarget();
  const document = new Document();
  const navigator = { onLine: true };
  vi.stubGlobal("navigator", navigator);
  vi.stubGlobal("document", document);
  vi.stubGlobal("addEventListener", window.addEventListener.bind(window));
  vi.stubGlobal("removeEventListener", window.removeEventListener.bind(window));
  return {
    get listening() {
      return window.listening + document.listening;
    },
    online(isOnline: boolean) {
      navigator.onLine = isOnline;
      window.dispatchEvent(new Event(isOnline ? "online" : "offline"));
    },
    visible(isVisible: boolean) {
      document.visibilityState = isVisible ? "visible" : "hidden";
      document.dispatchEvent(new Event("visibilitychange"));
    },
    left() {
      window.dispatchEvent(new Event("pagehide"));
    },
    restored() {
      window.dispatchEvent(new Event("pageshow"));
    },
  };
}
