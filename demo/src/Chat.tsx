import { useCallback, useState } from "react";
import type { History } from "./api";
import { Composer } from "./Composer";
import { ConnectionStrip } from "./ConnectionStrip";
import { CloseIcon, DownIcon, MenuIcon, PanelIcon, RetryIcon } from "./icons";
import { Message, type MessageStatus } from "./Message";
import { Panel } from "./Panel";
import { type Session, useSession } from "./useSession";
import { useStickyScroll } from "./useStickyScroll";
import { Welcome } from "./Welcome";

interface Props {
  chatId: string;
  history: History;
  title: string | null;
  known: boolean;
  onChange(): void;
  onMenu(): void;
}

const WIDE = "(min-width: 1180px)";

export function Chat({ chatId, history, title, known, onChange, onMenu }: Props) {
  const session = useSession(chatId, history, known, onChange);
  const [panel, setPanel] = useState(
    () => matchMedia(WIDE).matches && localStorage.getItem("panel") !== "closed",
  );
  const togglePanel = useCallback(() => {
    setPanel((now) => {
      if (matchMedia(WIDE).matches) localStorage.setItem("panel", now ? "closed" : "open");
      return !now;
    });
  }, []);
  const { messages } = session;
  const scroll = useStickyScroll(messages);
  const empty = messages.length === 0 && !session.running;

  const send = (text: string) => {
    session.send(text);
    scroll.toEnd();
  };
  return (
    <>
      <main className="chat">
        <header className="chat-head">
          <button
            type="button"
            className="icon-button only-narrow"
            data-testid="list-toggle"
            onClick={onMenu}
            aria-label="Show the list of chats"
          >
            <MenuIcon />
          </button>
          <h1>{title || "New chat"}</h1>
          <button
            type="button"
            className="icon-button"
            data-testid="panel-toggle"
            onClick={togglePanel}
            aria-pressed={panel}
            aria-label="What happens underneath"
            title="What happens underneath"
          >
            <PanelIcon />
          </button>
        </header>
        <ConnectionStrip chatId={chatId} tally={session.tally} busy={session.busy} />
        <div className="scroll" ref={scroll.ref} onScroll={scroll.onScroll}>
          <div className="column" ref={scroll.content}>
            {empty ? <Welcome onPick={send} /> : <Messages session={session} />}
          </div>
        </div>
        <div className="dock">
          {!scroll.atEnd && (
            <button type="button" className="button to-end" onClick={scroll.toEnd}>
              <DownIcon /> Latest
            </button>
          )}
          {session.error !== null && (
            <div className="banner" role="alert" data-testid="error">
              <p>{session.error}</p>
              {messages.length > 0 && session.unsent === null && (
                <button type="button" className="button" onClick={session.retry}>
                  <RetryIcon /> Try again
                </button>
              )}
              <button type="button" className="icon-button" onClick={session.dismiss} aria-label="Dismiss">
                <CloseIcon />
              </button>
            </div>
          )}
          <Composer running={session.running} onSend={send} onStop={session.stop} />
        </div>
      </main>
      {panel && <Panel chatId={chatId} feed={session.feed} onClose={togglePanel} />}
    </>
  );
}

function Messages({ session }: { session: Session }) {
  const { messages, ends, busy, unsent } = session;
  const last = messages.at(-1);
  const waiting = busy && last?.role !== "assistant";
  return (
    <>
      <ol className="messages">
        {messages.map((message) => {
          const isLast = message === last;
          const end = ends[message.id];
          const status: MessageStatus =
            message.role === "user"
              ? message.id === unsent
                ? "unsent"
                : "sent"
              : isLast && busy
                ? "streaming"
                : end && end.status !== "running" && end.status !== "queued"
                  ? end.status
                  : "completed";
          return (
            <Message
              key={message.id}
              message={message}
              status={status}
              error={end?.error ?? null}
              canRetry={isLast && !busy}
              onRetry={session.retry}
              onEdit={session.edit}
            />
          );
        })}
      </ol>
      {waiting && (
        <p className="waiting" aria-hidden="true">
          <span className="pulse" />
        </p>
      )}
      <p className="sr-only" aria-live="polite">
        {busy ? "A reply is arriving." : ""}
      </p>
    </>
  );
}
