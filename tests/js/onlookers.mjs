// Pages that look on while servers die: the other half of tests/python/crash/onlookers.py.
// usage: node onlookers.mjs; one JSON object per line in, one line out:
//   {"open": name, "url": url, "chat": id}   the conversation on three wires, by this package's clients: {}
//   {"shown": name}                          what they show now: {"session", "thread", "wrong"}
//   {"close": name}                          {"answers": what they were sent, "replies": what the AI SDK's chat read}
import { createInterface } from "node:readline";
import { ChatClient } from "@tanstack/ai-client";
import { createSessions } from "strandline";
import { strandlineTransport } from "strandline/ai-sdk";
import { strandlineConnection } from "strandline/tanstack";

const RETRY = { minDelayMs: 5, maxDelayMs: 40, giveUpAfterMs: 60_000 };
const pages = new Map();

/** A fetch that keeps what it was answered, as far as its caller has read it. */
const kept = (answers, wire) => async (url, init) => {
  const response = await fetch(url, init);
  const { pathname, search } = new URL(url);
  const answer = { wire, path: pathname + search, cursor: init.headers.get("Last-Event-ID"), at: Date.now() };
  answers.push(Object.assign(answer, { status: response.status, text: "" }));
  if (response.body === null) return response;
  const decoder = new TextDecoder();
  const transform = (bytes, out) => {
    answer.text += decoder.decode(bytes, { stream: true });
    out.enqueue(bytes);
  };
  return new Response(response.body.pipeThrough(new TransformStream({ transform })), response);
};

const textOf = ({ parts }) =>
  parts.map((part) => (part.type === "text" ? (part.text ?? part.content) : "")).join("");

/** Agents count: whatever is missing, doubled or out of order shows, at whatever moment. */
function isCount(text) {
  const words = text.split(" ").slice(0, -1);
  return text === words.map((_, index) => `${index + 1} `).join("");
}

function open({ url, chat, live }) {
  const [answers, replies, wrong] = [[], [], new Set()];
  const options = { retry: RETRY, ai: 7 };
  let isOpen = true;

  const sessions = createSessions({
    ...options,
    url: `${url}/api/sessions`,
    pageSize: 1000,
    fetch: kept(answers, "session"),
  });
  const session = sessions.open(chat);
  session.subscribe(() => {
    const { messages, spawned } = session.getSnapshot();
    for (const message of [...messages.slice(-4), ...spawned.slice(-2).map((one) => one.message)])
      if (message.role === "assistant" && !isCount(textOf(message)))
        wrong.add(`session: ${message.id}: ${textOf(message)}`);
  });

  const connection = strandlineConnection({
    retry: RETRY,
    url: `${url}/api/tanstack`,
    threadId: chat,
    fetch: kept(answers, "tanstack"),
  });
  const thread = new ChatClient({
    connection,
    threadId: chat,
    persistence: true,
    onError: () => {}, // Of a run that has failed or was lost.
    onMessagesChange(messages) {
      // What came after a result is a message of its own (PROTOCOL §11.4).
      const texts = new Map();
      for (const message of messages.slice(-6)) {
        const [id] = message.id.split("~");
        if (message.role === "assistant" && (message.id === id || texts.has(id)))
          texts.set(id, (texts.get(id) ?? "") + textOf(message));
      }
      for (const [id, text] of texts) if (!isCount(text)) wrong.add(`thread: ${id}: ${text}`);
    },
  });
  if (live) {
    thread.subscribe();
    thread.attach();
  }

  const transport = strandlineTransport({
    ...options,
    api: `${url}/api/chat`,
    fetch: kept(answers, "ai-sdk"),
  });
  const deleted = new Set();
  session.onEvent(({ type, message_id: id }) => type === "message-deleted" && deleted.add(id));
  /** As a chat with `resume` does, whenever something is being written. */
  async function follow() {
    while (isOpen) {
      const gone = new Set(deleted);
      const isActive = session.getSnapshot().activeRuns.length > 0;
      const stream = isActive ? await transport.reconnectToStream({ chatId: chat }).catch(String) : null;
      if (stream === null || typeof stream === "string") {
        await new Promise((resolve) => setTimeout(resolve, 15));
        continue;
      }
      const reply = { ...transport.activeRun(chat), chunks: [], end: null };
      replies.push(reply);
      if (gone.has(reply.messageId)) wrong.add(`chat: ${reply.messageId} is there again`);
      try {
        for await (const chunk of stream) reply.chunks.push(chunk);
      } catch (error) {
        reply.end = error.code ?? error.name;
      }
    }
  }
  void follow();

  return {
    shown() {
      const { status, cursor, messages, runs, activeRuns, notes, branches, decisions, annotations, spawned } =
        session.getSnapshot();
      const view = { status, cursor, messages, runs, activeRuns, notes, branches, decisions, annotations, spawned };
      const shown = thread.getMessages().map(({ id, role, parts }) => ({ id, role, parts }));
      return { session: view, thread: shown, wrong: [...wrong] };
    },
    close() {
      isOpen = false;
      sessions.close();
      transport.close();
      thread.detach();
      thread.dispose();
      return { answers, replies };
    },
  };
}

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  let answer = {};
  if ("open" in order) pages.set(order.open, open(order));
  else if ("shown" in order) answer = pages.get(order.shown).shown();
  else answer = pages.get(order.close).close();
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit();
