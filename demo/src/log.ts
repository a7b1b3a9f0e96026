/** The rows of “what happens underneath”: every event of a session as it comes, and what happens to the connection. */
import { useEffect, useMemo } from "react";
import type { Session } from "strandline";
import { summaryOf } from "./events";
import { createStore, type Store, useStore } from "./store";
import { lineOf, type Mark } from "./transport";

export interface Row {
  key: number;
  cursor: string | null;
  kind: string;
  run: string | null;
  size: number;
  summary: string;
}

let keys = 0;
const MAX_ROWS = 500;
const FLUSH_MS = 80;

const MARKS: Record<Mark["kind"], string> = {
  cut: "this tab lost its connection after this cursor",
  resumed: "this tab resumed after this cursor",
  replayed: "this page was reloaded and got the reply from its start",
};

/** Fills the rows while it is being followed. Returns what ends that. */
function follow(session: Session, rows: Store<Row[]>): () => void {
  const line = lineOf(session.id);
  let pending: Row[] = [];
  let flushing: ReturnType<typeof setTimeout> | undefined;
  // In batches: a fast reply must not render the panel for every token.
  const add = (row: Omit<Row, "key">) => {
    pending.push({ ...row, key: keys++ });
    flushing ??= setTimeout(() => {
      flushing = undefined;
      const added = pending;
      pending = [];
      rows.set((now) => [...now, ...added].slice(-MAX_ROWS));
    }, FLUSH_MS);
  };
  let { mark } = line.get();
  const undos = [
    session.onEvent((event, cursor = "") => {
      if (event.type === "readers") return;
      const run = typeof event.run === "string" ? event.run : null;
      add({
        cursor: cursor || null,
        kind: event.type,
        run,
        size: JSON.stringify(event).length,
        summary: summaryOf(event),
      });
    }),
    line.subscribe(() => {
      const now = line.get().mark;
      if (now !== null && now !== mark)
        add({ cursor: now.cursor, kind: `tab-${now.kind}`, run: null, size: 0, summary: MARKS[now.kind] });
      mark = now;
    }),
    () => clearTimeout(flushing),
  ];
  return () => {
    for (const undo of undos) undo();
  };
}

export function useLog(session: Session): Row[] {
  const rows = useMemo(() => createStore<Row[]>([]), []);
  useEffect(() => follow(session, rows), [session, rows]);
  return useStore(rows);
}
