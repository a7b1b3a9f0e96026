import { useEffect, useRef } from "react";
import type { SessionInfo } from "strandline";
import { CloseIcon, Logo, PlusIcon } from "./icons";

interface Props {
  sessions: SessionInfo[] | null;
  current: string;
  /** Is the drawer open? Only a narrow screen has one. */
  open: boolean;
  onClose(): void;
  onPick(id: string): void;
  onNew(): void;
}

/** “now”, “5 min”, “3 h”, “12 Aug”. */
function age(when: number): string {
  const date = new Date(when);
  const minutes = Math.floor((Date.now() - date.getTime()) / 60_000);
  if (Number.isNaN(minutes)) return "";
  if (minutes < 1) return "now";
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)} h`;
  return date.toLocaleDateString(undefined, { day: "numeric", month: "short" });
}

export function ChatList({ sessions, current, open, onClose, onPick, onNew }: Props) {
  const close = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    if (!open) return;
    close.current?.focus();
    const onKey = (event: KeyboardEvent) => {
      if (event.key === "Escape") onClose();
    };
    window.addEventListener("keydown", onKey);
    return () => window.removeEventListener("keydown", onKey);
  }, [open, onClose]);

  return (
    <>
      <aside className={open ? "rail rail-open" : "rail"} aria-label="Chats">
        <header className="rail-head">
          <Logo />
          <span className="wordmark">Strandline</span>
          <button
            ref={close}
            type="button"
            className="icon-button only-narrow"
            onClick={onClose}
            aria-label="Close the list"
          >
            <CloseIcon />
          </button>
        </header>
        <button type="button" className="button new-chat" data-testid="new-chat" onClick={onNew}>
          <PlusIcon /> New chat
        </button>
        <nav className="chat-list" data-testid="chat-list" aria-label="Earlier chats">
          {sessions !== null && sessions.length === 0 && (
            <p className="quiet">Your chats will be listed here, on every device.</p>
          )}
          <ul>
            {sessions?.map((session) => (
              <li key={session.id}>
                <a
                  href={`?chat=${encodeURIComponent(session.id)}`}
                  aria-current={session.id === current ? "page" : undefined}
                  data-chat={session.id}
                  onClick={(event) => {
                    if (event.metaKey || event.ctrlKey || event.shiftKey) return;
                    event.preventDefault();
                    onPick(session.id);
                  }}
                >
                  <span className="chat-title">{session.title || "Untitled chat"}</span>
                  {session.activeRun ? (
                    <span className="running-dot" role="img" aria-label="A reply is running" />
                  ) : (
                    <span className="chat-age">{age(session.updatedAt)}</span>
                  )}
                </a>
              </li>
            ))}
          </ul>
        </nav>
        <footer className="rail-foot">
          <p>Open a chat in a second tab, or on your phone. It is the same chat.</p>
        </footer>
      </aside>
      {open && <div className="scrim" onClick={onClose} aria-hidden="true" />}
    </>
  );
}
