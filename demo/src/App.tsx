import { useCallback, useEffect, useRef, useState } from "react";
import { errorText, type History, listSessions, loadHistory, type SessionInfo } from "./api";
import { Chat } from "./Chat";
import { ChatList } from "./ChatList";
import { RetryIcon } from "./icons";
import { newChatId } from "./ids";
import { offline } from "./offline";
import { expectReplay, show } from "./transport";

const POLL_MS = 5_000;

const chatInUrl = () => new URLSearchParams(location.search).get("chat");

/** The chat of the address bar. A page without one gets a new chat at once, so that a refresh finds it again. */
function useChatId(): [string, (id: string) => void] {
  const [chatId, setChatId] = useState(() => {
    const id = chatInUrl() ?? newChatId();
    history.replaceState(null, "", `?chat=${encodeURIComponent(id)}`);
    return id;
  });
  useEffect(() => {
    const back = () => setChatId((now) => chatInUrl() ?? now);
    window.addEventListener("popstate", back);
    return () => window.removeEventListener("popstate", back);
  }, []);
  const open = useCallback((id: string) => {
    if (id !== chatInUrl()) history.pushState(null, "", `?chat=${encodeURIComponent(id)}`);
    setChatId(id);
  }, []);
  return [chatId, open];
}

function useSessions(): [SessionInfo[] | null, () => void] {
  const [sessions, setSessions] = useState<SessionInfo[] | null>(null);
  const refresh = useCallback(() => {
    listSessions().then(setSessions, () => {});
  }, []);
  useEffect(() => {
    refresh();
    const look = () => {
      if (!document.hidden && !offline.get()) refresh();
    };
    const timer = setInterval(look, POLL_MS);
    document.addEventListener("visibilitychange", look);
    window.addEventListener("online", look);
    return () => {
      clearInterval(timer);
      document.removeEventListener("visibilitychange", look);
      window.removeEventListener("online", look);
    };
  }, [refresh]);
  return [sessions, refresh];
}

export function App() {
  const [chatId, openChat] = useChatId();
  const [sessions, refresh] = useSessions();
  const [drawer, setDrawer] = useState(false);
  const title = sessions?.find((session) => session.id === chatId)?.title ?? null;

  useEffect(() => {
    document.title = title ? `${title} · Strandline` : "Strandline";
  }, [title]);

  const go = (id: string) => {
    setDrawer(false);
    openChat(id);
  };
  return (
    <div className="app">
      <ChatList
        sessions={sessions}
        current={chatId}
        open={drawer}
        onClose={() => setDrawer(false)}
        onPick={go}
        onNew={() => go(newChatId())}
      />
      <OpenChat
        key={chatId}
        chatId={chatId}
        title={title}
        known={sessions?.some((session) => session.id === chatId) ?? false}
        onChange={refresh}
        onMenu={() => setDrawer(true)}
      />
    </div>
  );
}

interface OpenChatProps {
  chatId: string;
  title: string | null;
  known: boolean;
  onChange(): void;
  onMenu(): void;
}

/** History first, then the chat: the transport takes it from there. */
function OpenChat(props: OpenChatProps) {
  const { chatId } = props;
  const [history, setHistory] = useState<History | null>(null);
  const [error, setError] = useState<string | null>(null);
  const asked = useRef(false);

  const load = useCallback(() => {
    setError(null);
    loadHistory(chatId).then(
      (answer) => {
        show(chatId);
        if (answer.activeRun !== null) expectReplay(chatId);
        setHistory(answer);
      },
      (reason: unknown) => setError(errorText(reason)),
    );
  }, [chatId]);

  useEffect(() => {
    if (asked.current) return;
    asked.current = true;
    load();
  }, [load]);
  useEffect(() => {
    if (error === null) return;
    window.addEventListener("online", load);
    return () => window.removeEventListener("online", load);
  }, [error, load]);

  if (history !== null) return <Chat {...props} history={history} />;
  return (
    <main className="chat chat-loading" aria-busy={error === null}>
      {error === null ? (
        <p className="quiet" role="status">
          Opening the chat…
        </p>
      ) : (
        <div className="banner" role="alert" data-testid="error">
          <p>{error}</p>
          <button type="button" className="button" onClick={load}>
            <RetryIcon /> Try again
          </button>
        </div>
      )}
    </main>
  );
}
