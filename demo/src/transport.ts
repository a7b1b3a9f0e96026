/** The sessions of this page, the transport that reads them, and what has happened to their connections. */
import { createSessions } from "strandline";
import { sessionTransport } from "strandline/ai-sdk/sessions";
import { device } from "./device";
import { switchedFetch, tap } from "./offline";
import { createStore, type Store } from "./store";

export const sessions = createSessions({
  fetch: switchedFetch,
  device,
  ai: 7,
  storage: sessionStorage,
  // A browser allows six connections per host, for all tabs together: a hidden tab gives its own back soon.
  hiddenMs: 15_000,
});

export const transport = sessionTransport({ sessions });

const [loaded] = performance.getEntriesByType("navigation") as PerformanceNavigationTiming[];
/** The chat that this tab showed when its page was reloaded, until that has been counted. A fresh tab has none. */
let reloaded = loaded?.type === "navigate" ? null : new URLSearchParams(location.search).get("chat");

/** Something that happened to the connection, to be shown between the events of the log. */
export interface Mark {
  kind: "cut" | "resumed" | "replayed";
  cursor: string | null;
}

export interface Line {
  /** How often the session was picked up again: after a cut, or in the middle of a reply by a page that was reloaded. */
  resumed: number;
  /** Cursor of the last frame that this tab received. */
  cursor: string | null;
  mark: Mark | null;
}

const lines = new Map<string, Store<Line>>();

/** The state of one session's connection. The count of resumes outlives a reload: it is what a reload is about. */
export function lineOf(chatId: string): Store<Line> {
  let line = lines.get(chatId);
  if (line === undefined) {
    const resumed = Number(sessionStorage.getItem(`resumed:${chatId}`)) || 0;
    line = createStore<Line>({ resumed, cursor: null, mark: null });
    lines.set(chatId, line);
  }
  return line;
}

const update = (chatId: string, change: Partial<Line>) =>
  lineOf(chatId).set((now) => ({ ...now, ...change }));

/** A reply is picked up in its middle by a page that has just begun. */
export function countReload(chatId: string): void {
  if (chatId === reloaded) countResume(chatId, "replayed", null);
  reloaded = null;
}

/** One more resume that really happened. */
function countResume(chatId: string, kind: "resumed" | "replayed", cursor: string | null): void {
  const resumed = lineOf(chatId).get().resumed + 1;
  sessionStorage.setItem(`resumed:${chatId}`, String(resumed));
  update(chatId, { resumed, mark: { kind, cursor } });
}

/** Cuts the connection as if its socket had died. */
export function drop(chatId: string): void {
  update(chatId, { mark: { kind: "cut", cursor: lineOf(chatId).get().cursor } });
  sessions.open(chatId).drop();
}

const FEED = /^\/api\/sessions\/([^/]+)\/events$/;

function chatOf(request: Request): string | null {
  const [, id] = FEED.exec(new URL(request.url).pathname) ?? [];
  return id === undefined ? null : decodeURIComponent(id);
}

tap({
  opened(request, response) {
    const chatId = chatOf(request);
    const after = request.headers.get("Last-Event-ID");
    if (chatId !== null && after !== null && response.status === 200) countResume(chatId, "resumed", after);
  },
  cursor(request, cursor) {
    const chatId = chatOf(request);
    if (chatId !== null) update(chatId, { cursor });
  },
  cut(request) {
    const chatId = chatOf(request);
    if (chatId !== null) update(chatId, { mark: { kind: "cut", cursor: lineOf(chatId).get().cursor } });
  },
});
