/** A name for this tab, which the list of readers shows on every device. It stays the same when the page is reloaded. */
import { newChatId } from "./ids";

function name(): string {
  const kind = /Mobi|Android/.test(navigator.userAgent) ? "phone" : "desktop";
  return `${kind}-${newChatId().slice(0, 4)}`;
}

function remembered(): string {
  const stored = sessionStorage.getItem("device");
  if (stored !== null) return stored;
  const fresh = name();
  sessionStorage.setItem("device", fresh);
  return fresh;
}

export const device = remembered();
