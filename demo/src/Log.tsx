import { memo, useLayoutEffect, useRef, useState } from "react";
import { shortId } from "./ids";
import type { Row } from "./log";

interface Props {
  rows: Row[];
  /** Cursor of the last frame that this tab received. */
  cursor: string | null;
}

const MARK = "tab-";

/** The log itself. It follows its end until it is paused, or until somebody scrolls up. */
export function Log({ rows, cursor }: Props) {
  const [paused, setPaused] = useState(false);
  const [shown, setShown] = useState(rows);
  const box = useRef<HTMLDivElement>(null);
  if (!paused && shown !== rows) setShown(rows);

  // Cursors are opaque: they can be equal, that is all. The newest row that this tab is known to have reached counts.
  const here = useRef<string | null>(null);
  const reached = rows.findLast((row) => row.cursor !== null && row.cursor === cursor);
  if (reached) here.current = reached.cursor;

  // biome-ignore lint/correctness/useExhaustiveDependencies: a new row is what there is to scroll to
  useLayoutEffect(() => {
    const list = box.current;
    if (list && !paused) list.scrollTop = list.scrollHeight;
  }, [shown, paused]);

  const onScroll = () => {
    const list = box.current;
    if (!list) return;
    const away = list.scrollHeight - list.scrollTop - list.clientHeight > 60;
    if (away && !paused) setPaused(true);
  };
  const waiting = paused ? rows.length > 0 && (rows.at(-1)?.key ?? 0) - (shown.at(-1)?.key ?? 0) : 0;
  return (
    <section className="log" aria-label="Log">
      <h3>
        Log <span>{rows.length}</span>
        <button
          type="button"
          className="text-button"
          aria-pressed={paused}
          onClick={() => setPaused(!paused)}
        >
          {paused ? (waiting ? `Follow (${waiting} new)` : "Follow") : "Pause"}
        </button>
      </h3>
      <div
        className="log-rows"
        ref={box}
        onScroll={onScroll}
        data-testid="log"
        role="log"
        aria-live="off"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: a box that scrolls must be reachable by keyboard
        tabIndex={0}
      >
        {shown.length === 0 && (
          <p className="quiet">Every event of this chat will appear here, as it is committed.</p>
        )}
        {shown.map((row) => (
          <LogRow key={row.key} row={row} here={row.cursor !== null && row.cursor === here.current} />
        ))}
      </div>
    </section>
  );
}

const LogRow = memo(function LogRow({ row, here }: { row: Row; here: boolean }) {
  if (row.kind.startsWith(MARK)) {
    return (
      <p
        className={`log-mark ${row.kind}`}
        data-testid="log-mark"
        data-kind={row.kind}
        data-cursor={row.cursor ?? ""}
      >
        {row.summary}
        {row.cursor !== null && <code>{row.cursor}</code>}
      </p>
    );
  }
  return (
    <div
      className={here ? "log-row log-here" : "log-row"}
      data-testid="log-row"
      data-kind={row.kind}
      data-cursor={row.cursor ?? ""}
    >
      <code className="log-cursor">{row.cursor}</code>
      <span className={`log-kind kind-${row.kind}`}>{row.kind}</span>
      <span className="log-size">{row.size} B</span>
      <span className="log-summary">{row.summary}</span>
      {row.run !== null && <code className="log-run">{shortId(row.run)}</code>}
      {here && <span className="you">this tab is here</span>}
    </div>
  );
});
