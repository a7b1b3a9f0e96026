/** The one transport of this page, and what it is doing for each chat. */
import { strandlineTransport } from "strandline/ai-sdk";
import { device } from "./device";
import { switchedFetch, tap } from "./offline";
import { createStore, type Store } from "./store";

export type Connection = "idle" | "connecting" | "live" | "waiting" | "offline";

/** Something that happened to the connection, to be shown between the events of the log. */
export interface Mark {
  kind: "cut" | "resumed" | "replayed" | "joined";
  cursor: string | null;
}

export interface Line {
  connection: Connection;
  /** How often a reply was picked up again: after a cut, or by a page that was reloaded. */
  resumed: number;
  /** Cursor of the last frame that this tab received. */
  cursor: string | null;
  /** The run whose end this tab has seen last. */
  ended: string | null;
  mark: Mark | null;
}

const fresh: Line = { connection: "idle", resumed: 0, cursor: null, ended: null, mark: null };
const lines = new Map<string, Store<Line>>();

/** The state of one chat's connection. The count of resumes outlives a reload: it is what a reload is about. */
export function lineOf(chatId: string): Store<Line> {
  let line = lines.get(chatId);
  if (line === undefined) {
    const stored = Number(sessionStorage.getItem(`resumed:${chatId}`));
    line = createStore<Line>({ ...fresh, resumed: Number.isSafeInteger(stored) ? stored : 0 });
    lines.set(chatId, line);
  }
  return line;
}

const update = (chatId: string, change: Partial<Line>) =>
  lineOf(chatId).set((now) => ({ ...now, ...change }));

/** One more resume that really happened. */
export function countResume(chatId: string): void {
  const resumed = lineOf(chatId).get().resumed + 1;
  sessionStorage.setItem(`resumed:${chatId}`, String(resumed));
  update(chatId, { resumed });
}

const TERMINAL = new Set(["finish", "abort", "error"]);

export const transport = strandlineTransport({
  api: "/api/chat",
  fetch: switchedFetch,
  headers: { "Strandline-Device": device },
  ai: 7,
  onStatus(chatId, status, { run, reason = "" }) {
    if (status !== "ended") return update(chatId, { connection: status });
    const sawItsEnd = run !== undefined && TERMINAL.has(reason);
    update(chatId, { connection: "idle", ...(sawItsEnd ? { ended: run } : {}) });
  },
});

const STREAM = /^\/api\/chat\/([^/]+)\/stream$/;

/** The chat whose reply a request streams. A POST carries it in its body; then the newest one that posts is meant. */
function chatOf(request: Request): string | null {
  const { pathname } = new URL(request.url);
  const match = STREAM.exec(pathname);
  if (match?.[1] !== undefined) return decodeURIComponent(match[1]);
  return pathname === "/api/chat" ? shown : null;
}

let shown: string | null = null;

/** Tell which chat is on the screen: posts are made for it. */
export function show(chatId: string): void {
  shown = chatId;
}

const reload = new Set<string>();

/** The page was opened while a reply was running: its first attach picks that reply up again. */
export function expectReplay(chatId: string): void {
  reload.add(chatId);
}

const owners = new WeakMap<Request, string>();

tap({
  opened(request, response) {
    const chatId = chatOf(request);
    if (chatId === null || response.status !== 200) return;
    if (!response.headers.get("Content-Type")?.startsWith("text/event-stream")) return;
    owners.set(request, chatId);
    const after = request.headers.get("Last-Event-ID");
    if (request.method === "POST") return;
    const wasReloaded = reload.delete(chatId);
    if (after !== null || wasReloaded) countResume(chatId);
    const kind = after !== null ? "resumed" : wasReloaded ? "replayed" : "joined";
    update(chatId, { mark: { kind, cursor: after } });
  },
  cursor(request, cursor) {
    const chatId = owners.get(request);
    if (chatId !== undefined) update(chatId, { cursor });
  },
  cut(request) {
    const chatId = owners.get(request);
    if (chatId !== undefined) update(chatId, { mark: { kind: "cut", cursor: lineOf(chatId).get().cursor } });
  },
});
