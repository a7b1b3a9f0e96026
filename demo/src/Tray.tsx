import { CloseIcon } from "./icons";
import type { OpenChat } from "./useOpenChat";
import type { Waiting } from "./waiting";

const STATES: Record<Waiting["state"], string> = {
  told: "Told, not taken yet",
  queued: "Queued",
  sending: "Sending",
};

/** What was said while a reply is being written, on any device. What is queued can be taken back, on any device. */
export function Tray({ chat }: { chat: OpenChat }) {
  const { session, waiting } = chat;
  if (waiting.length === 0) return null;
  return (
    <ul className="tray" aria-label="Waiting">
      {waiting.map((one) => (
        <li key={one.id} data-testid="waiting" data-state={one.state}>
          <span className="tray-state">{STATES[one.state]}</span>
          <span className="tray-text">{one.text}</span>
          {one.state === "queued" && (
            <button
              type="button"
              className="icon-button"
              data-testid="take-back"
              onClick={() => chat.attempt(() => session.delete(one.id))}
              aria-label={`Take back “${one.text}”`}
              title="Take back"
            >
              <CloseIcon />
            </button>
          )}
        </li>
      ))}
    </ul>
  );
}
