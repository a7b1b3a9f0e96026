import type { Tally } from "./check";
import { CloudIcon, CutIcon } from "./icons";
import { goOffline, goOnline, offline } from "./offline";
import { useStore } from "./store";
import { type Connection, lineOf, transport } from "./transport";

interface Props {
  chatId: string;
  tally: Tally;
  busy: boolean;
}

const WORDS: Record<Connection, string> = {
  idle: "Idle",
  connecting: "Connecting",
  live: "Live",
  waiting: "Reconnecting",
  offline: "Offline",
};

export function ConnectionStrip({ chatId, tally, busy }: Props) {
  const line = useStore(lineOf(chatId));
  const isOffline = useStore(offline);
  const connection = isOffline ? "offline" : line.connection;
  const checked =
    tally.replies === 0
      ? "When a reply has ended, what this tab streamed is compared with what the server stored, character by character."
      : `Characters, in ${tally.replies} ${tally.replies === 1 ? "reply" : "replies"} that this tab streamed and compared with what the server stored.`;

  const drop = () => {
    const { cursor } = lineOf(chatId).get();
    lineOf(chatId).set((now) => ({ ...now, mark: { kind: "cut", cursor } }));
    transport.drop(chatId);
  };
  return (
    <section className="strip" aria-label="Connection">
      <p className={`connection connection-${connection}`} role="status" aria-live="polite">
        <span className="dot" aria-hidden="true" />
        <span data-testid="connection-status">{WORDS[connection]}</span>
      </p>
      <p className="tally" title={checked} data-testid="tally">
        resumed <b>{line.resumed}</b> {line.resumed === 1 ? "time" : "times"}, <b>{tally.lost}</b> lost,{" "}
        <b>{tally.duplicated}</b> duplicated
      </p>
      <div className="strip-buttons">
        <button
          type="button"
          className="button small"
          data-testid="drop"
          disabled={!busy || connection !== "live"}
          onClick={drop}
          title="Cut the connection of the running reply, as if the socket died"
        >
          <CutIcon /> Drop connection
        </button>
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
