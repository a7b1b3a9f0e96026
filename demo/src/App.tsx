import { useCallback, useEffect, useRef, useState } from "react";
import type { SessionInfo } from "strandline";
import { Chat } from "./Chat";
import { ChatList } from "./ChatList";
import { newChatId } from "./ids";
import { offline } from "./offline";
import { sessions } from "./transport";

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
  const [list, setList] = useState<SessionInfo[] | null>(null);
  const isAsking = useRef(false);
  const refresh = useCallback(() => {
    // It is asked until it is answered, so once at a time is enough.
    if (isAsking.current) return;
    isAsking.current = true;
    sessions
      .list()
      .then(
        (page) => setList(page.sessions),
        () => {},
      )
      .finally(() => {
        isAsking.current = false;
      });
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
  return [list, refresh];
}

export function App() {
  const [chatId, openChat] = useChatId();
  const [list, refresh] = useSessions();
  const [drawer, setDrawer] = useState(false);
  const title = list?.find((session) => session.id === chatId)?.title ?? null;

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
        sessions={list}
        current={chatId}
        open={drawer}
        onClose={() => setDrawer(false)}
        onPick={go}
        onNew={() => go(newChatId())}
      />
      <Chat
        key={chatId}
        chatId={chatId}
        title={title}
        known={list?.some((session) => session.id === chatId) ?? false}
        onChange={refresh}
        onMenu={() => setDrawer(true)}
      />
    </div>
  );
}
