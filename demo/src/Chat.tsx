import { useCallback, useState } from "react";
import type { SessionHandle } from "strandline/react";
import { Composer } from "./Composer";
import { ConnectionStrip } from "./ConnectionStrip";
import { CloseIcon, DownIcon, MenuIcon, NewTabIcon, PanelIcon, RetryIcon } from "./icons";
import { Message } from "./Message";
import { Panel } from "./Panel";
import { Tray } from "./Tray";
import { type How, type OpenChat, useOpenChat } from "./useOpenChat";
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
  const last = messages.at(-1);
  const scroll = useStickyScroll(messages);
  const empty = messages.length === 0 && !chat.running;
  const isOpening = session.cursor === null && session.status !== "absent" && empty;

  const send = (text: string, how: How) => {
    chat.send(text, how);
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
          <a
            className="button small second-tab"
            data-testid="second-tab"
            href={`?chat=${encodeURIComponent(chatId)}`}
            target="_blank"
            rel="noopener"
            title="The same chat, as another device has it"
          >
            <NewTabIcon /> Second tab
          </a>
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
              <Welcome onPick={(text) => send(text, "interrupt")} />
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
              {chat.canRetry && last && (
                <button type="button" className="button" onClick={() => chat.retry(last)}>
                  <RetryIcon /> Try again
                </button>
              )}
              <button type="button" className="icon-button" onClick={chat.dismiss} aria-label="Dismiss">
                <CloseIcon />
              </button>
            </div>
          )}
          <Tray chat={chat} />
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
  const { messages, busy, session } = chat;
  const asks = session.decisions.length > 0 ? "The agent waits for a decision." : "";
  const waiting = busy && messages.at(-1)?.role !== "assistant";
  return (
    <>
      <ol className="messages">
        {messages.map((message) => (
          <Message key={message.id} chat={chat} message={message} />
        ))}
      </ol>
      {waiting && (
        <p className="waiting" aria-hidden="true">
          <span className="pulse" />
        </p>
      )}
      <p className="sr-only" aria-live="polite">
        {busy ? "A reply is arriving." : asks}
      </p>
    </>
  );
}
