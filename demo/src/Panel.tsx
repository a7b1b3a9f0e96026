import { useEffect, useRef } from "react";
import type { SessionReader, SessionRun } from "strandline";
import type { SessionHandle } from "strandline/react";
import { device } from "./device";
import { CloseIcon } from "./icons";
import { shortId } from "./ids";
import { Log } from "./Log";
import type { Row } from "./log";

interface Props {
  session: SessionHandle;
  rows: Row[];
  onClose(): void;
}

/** “What happens underneath”: the session's log as it grows, its runs, and who reads it. */
export function Panel({ session, rows, onClose }: Props) {
  const { status } = session;
  const close = useRef(onClose);
  close.current = onClose;
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.key === "Escape" && !matchMedia("(min-width: 1180px)").matches) close.current();
    };
    window.addEventListener("keydown", onKey);
    return () => window.removeEventListener("keydown", onKey);
  }, []);
  return (
    <>
      <div className="scrim scrim-panel" onClick={onClose} aria-hidden="true" />
      <aside className="panel" aria-label="What happens underneath">
        <header className="panel-head">
          <h2>What happens underneath</h2>
          <span className={`feed-phase feed-${status}`}>{status}</span>
          <button type="button" className="icon-button panel-close" onClick={onClose} aria-label="Close">
            <CloseIcon />
          </button>
        </header>
        <Runs runs={session.runs} />
        <Readers readers={session.readers.filter(({ connected }) => connected)} live={status === "live"} />
        <Log rows={rows} cursor={session.cursor} />
      </aside>
    </>
  );
}

function Runs({ runs }: { runs: readonly SessionRun[] }) {
  return (
    <section className="facts" data-testid="runs" aria-label="Runs">
      <h3>
        Runs <span>{runs.length}</span>
      </h3>
      {runs.length === 0 ? (
        <p className="quiet">One for every reply.</p>
      ) : (
        <ul>
          {runs.toReversed().map((run) => (
            <li
              key={run.id}
              data-run={run.id}
              data-status={run.status}
              title={`run ${run.id}, message ${run.messageId}`}
            >
              <code>{shortId(run.id)}</code>
              <span className={`run-status run-${run.status}`}>{run.status}</span>
              {run.reason && run.reason !== run.status && <span className="quiet">{run.reason}</span>}
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

function Readers({ readers, live }: { readers: readonly SessionReader[]; live: boolean }) {
  return (
    <section className="facts" data-testid="readers" aria-label="Readers">
      <h3>
        Readers <span>{readers.length}</span>
      </h3>
      {readers.length === 0 ? (
        <p className="quiet">{live ? "Nobody is connected." : "Every open connection, of every device."}</p>
      ) : (
        <ul>
          {readers.map((reader) => (
            <li key={reader.id} data-reader={reader.id} data-wire={reader.wire}>
              <span className="device">{reader.device || "unnamed device"}</span>
              <span className="wire">{reader.wire}</span>
              <code>{reader.sent || "no cursor yet"}</code>
              {reader.device === device && <span className="you">this tab</span>}
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}
