import { useCallback, useState } from "react";
import type { SessionHandle } from "strandline/react";
import { Composer } from "./Composer";
import { ConnectionStrip } from "./ConnectionStrip";
import { CloseIcon, DownIcon, MenuIcon, PanelIcon, RetryIcon } from "./icons";
import { Message, type MessageStatus } from "./Message";
import { Panel } from "./Panel";
import { type OpenChat, useOpenChat } from "./useOpenChat";
import { useStickyScroll } from "./useStickyScroll";
import { Welcome } from "./Welcome";

interface Props {
  chatId: string;
  title: string | null;
  known: boolean;
  onChange(): void;
  onMenu(): void;
}

const WIDE = "(min-width: 1180px)";

export function Chat({ chatId, title, known, onChange, onMenu }: Props) {
  const chat = useOpenChat(chatId, known, onChange);
  const [panel, setPanel] = useState(
    () => matchMedia(WIDE).matches && localStorage.getItem("panel") !== "closed",
  );
  const togglePanel = useCallback(() => {
    setPanel((now) => {
      if (matchMedia(WIDE).matches) localStorage.setItem("panel", now ? "closed" : "open");
      return !now;
    });
  }, []);
  const { messages, session } = chat;
  const scroll = useStickyScroll(messages);
  const empty = messages.length === 0 && !chat.running;
  const isOpening = session.cursor === null && session.status !== "absent" && empty;

  const send = (text: string) => {
    chat.send(text);
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
        <ConnectionStrip session={session} tally={chat.tally} busy={chat.busy} />
        <div className="scroll" ref={scroll.ref} onScroll={scroll.onScroll}>
          <div className="column" ref={scroll.content}>
            {isOpening ? (
              <Opening session={session} />
            ) : empty ? (
              <Welcome onPick={send} />
            ) : (
              <Messages chat={chat} />
            )}
          </div>
        </div>
        <div className="dock">
          {!scroll.atEnd && (
            <button type="button" className="button to-end" onClick={scroll.toEnd}>
              <DownIcon /> Latest
            </button>
          )}
          {chat.error !== null && (
            <div className="banner" role="alert" data-testid="error">
              <p>{chat.error}</p>
              {messages.length > 0 && chat.unsent === null && (
                <button type="button" className="button" onClick={chat.retry}>
                  <RetryIcon /> Try again
                </button>
              )}
              <button type="button" className="icon-button" onClick={chat.dismiss} aria-label="Dismiss">
                <CloseIcon />
              </button>
            </div>
          )}
          <Composer running={chat.running} onSend={send} onStop={chat.stop} />
        </div>
      </main>
      {panel && <Panel session={session} rows={chat.rows} onClose={togglePanel} />}
    </>
  );
}

function Opening({ session }: { session: SessionHandle }) {
  if (session.error === null) {
    return (
      <p className="quiet" role="status">
        Opening the chat…
      </p>
    );
  }
  return (
    <div className="banner" role="alert" data-testid="error">
      <p>{session.error.message}</p>
      <button type="button" className="button" onClick={session.session.poke}>
        <RetryIcon /> Try again
      </button>
    </div>
  );
}

function Messages({ chat }: { chat: OpenChat }) {
  const { messages, ends, busy, unsent } = chat;
  const last = messages.at(-1);
  const waiting = busy && last?.role !== "assistant";
  return (
    <>
      <ol className="messages">
        {messages.map((message) => {
          const isLast = message === last;
          const end = ends.get(message.id);
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
              onRetry={chat.retry}
              onEdit={chat.edit}
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
