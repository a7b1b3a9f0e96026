/** What `strandline/react` renders where there is no page: on a server, and where it is used wrongly. */
import { createElement, type ReactNode } from "react";
import { renderToString } from "react-dom/server";
import { createSessions } from "strandline";
import { expect, test } from "vitest";
import { SessionsProvider, useSession, useSessionSync, useStop } from "../../js-adapter/src/react.js";

let asked = 0;
const sessions = createSessions({
  url: "http://127.0.0.1:1/api/sessions",
  fetch: () => {
    asked++;
    return Promise.reject(new Error("not from a server"));
  },
});

const chatOf = (id: string) => ({
  id,
  status: "ready" as const,
  messages: [{ id: "u1", role: "user" as const }],
  setMessages() {},
  sendMessage: async () => {},
  regenerate: async () => {},
  resumeStream: async () => {},
  stop: async () => {},
});

function Chat({ chat = "s1" }: { chat?: string }): ReactNode {
  const session = useSession("s1");
  const { messages, unsent } = useSessionSync(chatOf(chat), session);
  const { canStop, stopping } = useStop(session);
  return JSON.stringify([session.id, session.status, messages.length, unsent.length, canStop, stopping]);
}

const provided = (child: ReactNode) => renderToString(createElement(SessionsProvider, { sessions }, child));

test("a server renders the messages that it was given, and asks for nothing", async () => {
  const html = provided(createElement(Chat));
  expect(html.replaceAll("&quot;", '"')).toBe('["s1","idle",1,0,false,false]');
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(asked).toBe(0);
});

test("without sessions, and with another session's chat, it says what is wrong", () => {
  expect(() => renderToString(createElement(Chat))).toThrow("needs `sessions`, or a SessionsProvider");
  expect(() => provided(createElement(Chat, { chat: "s2" }))).toThrow(
    'the chat is "s2", but the session is "s1"',
  );
});
