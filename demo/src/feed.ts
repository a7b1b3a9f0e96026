/**
 * The live log of one session: a plain `EventSource` on `/api/sessions/{id}/events`, which resumes by itself. It is
 * opened again, after the last cursor, when the page comes back from the background or from (simulated) offline.
 */
import { device } from "./device";
import {
  applyToRuns,
  type FeedEvent,
  type FeedReader,
  type FeedSnapshot,
  type RunInfo,
  runsOf,
  summaryOf,
} from "./events";
import { offline } from "./offline";
import { createStore } from "./store";
import { lineOf, type Mark } from "./transport";

export interface Row {
  key: number;
  cursor: string | null;
  kind: string;
  run: string | null;
  size: number;
  summary: string;
}

export interface FeedState {
  phase: "waiting" | "connecting" | "live" | "offline";
  rows: Row[];
  runs: RunInfo[];
  readers: FeedReader[];
}

const MAX_ROWS = 500;
const MAX_RUNS = 100;
const FLUSH_MS = 80;
const RETRY_MS = 2_000;
const HIDDEN_MS = 15_000;

const MARKS: Record<Mark["kind"], string> = {
  cut: "this tab lost its connection after this cursor",
  resumed: "this tab resumed after this cursor",
  replayed: "this page was reloaded and got the reply from its start",
  joined: "this tab joined a reply that was started elsewhere",
};

export class SessionFeed {
  readonly state = createStore<FeedState>({ phase: "waiting", rows: [], runs: [], readers: [] });

  private source: EventSource | null = null;
  private cursor: string | null = null;
  private wanted = false;
  private keys = 0;
  private pending: Row[] = [];
  private flushing: ReturnType<typeof setTimeout> | undefined;
  private retry: ReturnType<typeof setTimeout> | undefined;
  private hiding: ReturnType<typeof setTimeout> | undefined;
  private readonly undo: (() => void)[] = [];

  constructor(
    private readonly chatId: string,
    private readonly onEvent: (event: FeedEvent) => void,
    /** Connected, for the first time or again: something may have been missed. */
    private readonly onOpen: () => void,
  ) {}

  /** Watch the page and the switch. The feed itself opens with `open`, once the server knows the session. */
  start(): void {
    const visibility = () => {
      clearTimeout(this.hiding);
      // A hidden tab gives its connection back: a browser allows six per host, for all tabs together.
      if (document.hidden) this.hiding = setTimeout(() => this.disconnect("waiting"), HIDDEN_MS);
      else this.connect();
    };
    document.addEventListener("visibilitychange", visibility);
    this.undo.push(() => document.removeEventListener("visibilitychange", visibility));
    this.undo.push(offline.subscribe(() => (offline.get() ? this.disconnect("offline") : this.connect())));
    let mark = lineOf(this.chatId).get().mark;
    this.undo.push(
      lineOf(this.chatId).subscribe(() => {
        const now = lineOf(this.chatId).get().mark;
        if (now !== mark && now !== null) this.note(now);
        mark = now;
      }),
    );
  }

  /** The session exists: follow it. */
  open(): void {
    this.wanted = true;
    this.connect();
  }

  stop(): void {
    this.wanted = false;
    this.disconnect("waiting");
    clearTimeout(this.flushing);
    clearTimeout(this.hiding);
    for (const undo of this.undo.splice(0)) undo();
  }

  private connect(): void {
    if (!this.wanted || this.source !== null || offline.get() || document.hidden) return;
    clearTimeout(this.retry);
    const query = new URLSearchParams({ device });
    if (this.cursor !== null) query.set("after", this.cursor);
    const source = new EventSource(`/api/sessions/${encodeURIComponent(this.chatId)}/events?${query}`);
    this.source = source;
    this.phase("connecting");
    source.onopen = () => {
      this.phase("live");
      this.onOpen();
    };
    source.onmessage = (message: MessageEvent<string>) => this.receive(message);
    source.onerror = () => {
      if (source.readyState === EventSource.CONNECTING) return this.phase("connecting");
      this.disconnect("connecting");
      this.retry = setTimeout(() => this.connect(), RETRY_MS);
    };
  }

  private disconnect(phase: FeedState["phase"]): void {
    clearTimeout(this.retry);
    this.source?.close();
    this.source = null;
    this.phase(phase);
    if (phase === "offline") this.state.set((now) => ({ ...now, readers: [] }));
  }

  private phase(phase: FeedState["phase"]): void {
    this.state.set((now) => (now.phase === phase ? now : { ...now, phase }));
  }

  private receive(message: MessageEvent<string>): void {
    const event = JSON.parse(message.data) as FeedEvent;
    if (event.type === "readers") {
      const readers = event.readers as FeedReader[];
      this.state.set((now) => ({ ...now, readers }));
      return;
    }
    this.cursor = message.lastEventId || this.cursor;
    if (event.type === "snapshot") {
      const snapshot = event as unknown as FeedSnapshot;
      const runs = runsOf(snapshot).slice(-MAX_RUNS);
      this.state.set((now) => ({ ...now, runs, readers: snapshot.readers ?? now.readers }));
    } else {
      this.state.set((now) => {
        const runs = applyToRuns(now.runs, event);
        return runs === now.runs ? now : { ...now, runs: runs.slice(-MAX_RUNS) };
      });
    }
    this.add({
      cursor: message.lastEventId || null,
      kind: event.type,
      run: event.run ?? null,
      size: message.data.length,
      summary: summaryOf(event),
    });
    this.onEvent(event);
  }

  private note(mark: Mark): void {
    this.add({
      cursor: mark.cursor,
      kind: `tab-${mark.kind}`,
      run: null,
      size: 0,
      summary: MARKS[mark.kind],
    });
  }

  /** Rows are shown in batches: a fast reply must not render the panel for every token. */
  private add(row: Omit<Row, "key">): void {
    this.pending.push({ ...row, key: this.keys++ });
    this.flushing ??= setTimeout(() => {
      this.flushing = undefined;
      const added = this.pending.splice(0);
      this.state.set((now) => ({ ...now, rows: [...now.rows, ...added].slice(-MAX_ROWS) }));
    }, FLUSH_MS);
  }
}
