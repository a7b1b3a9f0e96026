import type { SessionStatus } from "strandline";
import type { SessionHandle } from "strandline/react";
import type { Tally } from "./check";
import { CloudIcon, CutIcon, RetryIcon } from "./icons";
import { goOffline, goOnline, offline } from "./offline";
import { useStore } from "./store";
import { drop, lineOf } from "./transport";

interface Props {
  session: SessionHandle;
  tally: Tally;
  busy: boolean;
}

const WORDS: Record<SessionStatus, string> = {
  idle: "Idle",
  connecting: "Connecting",
  live: "Live",
  waiting: "Retrying",
  offline: "Offline",
  absent: "Idle",
  deleted: "Deleted",
  refused: "Refused",
};

export function ConnectionStrip({ session, tally, busy }: Props) {
  const { resumed } = useStore(lineOf(session.id));
  const isOffline = useStore(offline);
  const connection = isOffline ? "offline" : session.status;
  const checked =
    tally.replies === 0
      ? "When a reply has ended, what this tab streamed is compared with what the server stored, character by character."
      : `Characters, in ${tally.replies} ${tally.replies === 1 ? "reply" : "replies"} that this tab streamed and compared with what the server stored.`;

  return (
    <section className="strip" aria-label="Connection">
      <p className={`connection connection-${connection}`} role="status" aria-live="polite">
        <span className="dot" aria-hidden="true" />
        <span data-testid="connection-status">{WORDS[connection]}</span>
      </p>
      <p className="tally" title={checked} data-testid="tally">
        resumed <b>{resumed}</b> {resumed === 1 ? "time" : "times"}, <b>{tally.lost}</b> lost,{" "}
        <b>{tally.duplicated}</b> duplicated
      </p>
      <div className="strip-buttons">
        {connection === "waiting" ? (
          <button
            type="button"
            className="button small"
            data-testid="try-now"
            onClick={session.session.poke}
            title="Connect at once"
          >
            <RetryIcon /> Try now
          </button>
        ) : (
          <button
            type="button"
            className="button small"
            data-testid="drop"
            disabled={!busy || connection !== "live"}
            onClick={() => drop(session.id)}
            title="Cut the connection in the middle of the reply, as if the socket died"
          >
            <CutIcon /> Drop connection
          </button>
        )}
        <button
          type="button"
          className="button small"
          data-testid="offline-toggle"
          aria-pressed={isOffline}
          onClick={isOffline ? goOnline : goOffline}
          title="Refuse every request of this tab, as in a tunnel"
        >
          <CloudIcon /> {isOffline ? "Back online" : "Go offline"}
        </button>
      </div>
    </section>
  );
}
