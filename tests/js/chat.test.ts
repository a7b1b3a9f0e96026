/** What a person sees: the chats of ai 5, 6 and 7 over the transport. */
import { StrandlineResyncError } from "strandline";
import { describe, expect, test } from "vitest";
import { MAJORS, openChat } from "./chats.js";
import { frame, reply } from "./fake-server.js";
import { createGate, createWorld, settle, until } from "./support.js";

const world = createWorld();

const clean = { isAbort: false, isDisconnect: false, isError: false };
const aborted = { ...clean, isAbort: true };

type Chat = ReturnType<typeof openChat>["chat"];
const said = (chat: Chat) =>
  chat.messages.map(({ id, role, parts }) => ({
    id: role === "user" ? "user" : id,
    text: parts.map((part) => (part.type === "text" ? part.text : `<${part.type}>`)).join(""),
  }));
const asked = { id: "user", text: "hi" };
const answered = { id: "a1", text: "<step-start>Grüße, mein 🌊!" };
const half = { id: "a1", text: "<step-start>Grüße, " };

describe.each(MAJORS)("a chat of ai@%i", (major) => {
  const connect = (options = {}) => openChat(major, world.transport({ ai: major, ...options }));

  test("shows a reply that was cut three times once, and finishes once", async () => {
    world.server.fault("POST", { cutAfter: 100 });
    world.server.fault("GET", { cutAfter: 90 }, { cutAfter: 200, cleanly: true });
    const { chat, finishes, errors } = connect();
    await chat.sendMessage({ text: "hi" });
    expect(said(chat)).toEqual([asked, answered]);
    expect([chat.status, finishes, errors]).toEqual(["ready", [clean], []]);
    expect([world.server.count("POST"), world.server.count("GET")]).toEqual([1, 3]);
  });

  test("shows a reply whose POST was lost once", async () => {
    world.server.fault("POST", { loseAnswer: true }, { status: 502 }, { loseRequest: true });
    const { chat, finishes } = connect();
    await chat.sendMessage({ text: "hi" });
    expect(said(chat)).toEqual([asked, answered]);
    expect([world.server.runs.length, finishes]).toEqual([1, [clean]]);
  });

  test("goes on with a reply after a reload, from the start, without a double", async () => {
    const run = world.server.begin("c1", ...reply("a1").slice(0, 4));
    const { chat, finishes } = connect();
    chat.messages = [{ id: "user", role: "user", parts: [{ type: "text", text: "hi" }] }];
    const resuming = chat.resumeStream();
    await until(() => said(chat).length === 2);
    await until(() => said(chat)[1]?.text === half.text);
    run.append(...reply("a1").slice(4));
    await resuming;
    expect(said(chat)).toEqual([asked, answered]);
    expect([chat.status, finishes]).toEqual(["ready", [clean]]);
  });

  test("has nothing to do after a reload when nothing is active", async () => {
    const { chat, finishes, errors } = connect();
    await chat.resumeStream();
    // ai@5 calls onFinish all the same, over any transport.
    expect([chat.status, finishes, errors, chat.messages]).toEqual([
      "ready",
      major === 5 ? [clean] : [],
      [],
      [],
    ]);
  });

  test("reports a stop from anywhere as an abort, with every word before it", async () => {
    world.server.script = (run) => reply(run.messageId).slice(0, 4);
    const mine = connect();
    const sending = mine.chat.sendMessage({ text: "hi" });
    await until(() => said(mine.chat)[1]?.text === half.text);
    const theirs = connect();
    const resuming = theirs.chat.resumeStream();
    await until(() => said(theirs.chat)[0]?.text === half.text);
    await world.transport().stop("c1");
    await Promise.all([sending, resuming]);
    expect(said(mine.chat)).toEqual([asked, half]);
    expect(said(theirs.chat)).toEqual([half]);
    for (const { chat, finishes, errors } of [mine, theirs]) {
      expect([chat.status, finishes, errors]).toEqual(["ready", [aborted], []]);
    }
  });

  test("detaches, and no more, when it is stopped locally, also before the server has answered", async () => {
    const { gate, release } = createGate();
    world.server.fault("POST", { gate });
    world.server.script = (run) => reply(run.messageId).slice(0, 4);
    const { chat, finishes } = connect();
    const sending = chat.sendMessage({ text: "hi" });
    await until(() => world.server.count("POST") === 1);
    await chat.stop();
    await sending;
    expect([chat.status, finishes]).toEqual(["ready", [aborted]]);
    release();
    await until(() => world.server.runs.length === 1 && world.server.open.size === 0);
    expect(world.server.run.isActive).toBe(true);

    const resuming = chat.resumeStream();
    await until(() => said(chat)[1]?.text === half.text);
    await chat.stop();
    await resuming;
    await until(() => world.server.open.size === 0);
    expect([chat.status, world.server.run.isActive, world.server.count("STOP")]).toEqual(["ready", true, 0]);
  });

  test("shows a failed run as an error, and keeps what it said", async () => {
    world.server.script = (run) => [
      ...reply(run.messageId).slice(0, 4),
      { type: "error", errorText: "The model is on fire.", code: "agent" },
    ];
    const { chat, finishes, errors } = connect();
    await chat.sendMessage({ text: "hi" });
    expect(said(chat)).toEqual([asked, half]);
    expect([chat.status, finishes]).toEqual(["error", [{ ...clean, isError: true }]]);
    expect(errors.map(({ message }) => message)).toEqual(["The model is on fire."]);
  });

  test("reads a reply anew that cannot be continued, without a double", async () => {
    const cut = frame({ type: "start", messageId: "a1" }, "run1/1");
    const more = [...reply("a1").slice(1, 4)].map((chunk, i) => frame(chunk, `run1/${i + 2}`)).join("");
    world.server.fault("POST", { body: cut + more });
    world.server.fault("GET", { body: frame({ type: "error", errorText: "x", code: "resync" }) });
    world.server.script = (run) => reply(run.messageId).slice(0, -1);
    let resuming: Promise<void> | undefined;
    const { chat, errors, finishes } = connect({
      onResync: () => {
        resuming = chat.resumeStream();
      },
    });
    await chat.sendMessage({ text: "hi" });
    expect(errors[0]).toBeInstanceOf(StrandlineResyncError);
    expect([chat.status, finishes]).toEqual(["error", [{ ...clean, isError: true }]]);
    await until(() => resuming !== undefined);
    await until(() => said(chat)[1]?.text === answered.text);
    world.server.run.append({ type: "finish" });
    await resuming;
    expect(said(chat)).toEqual([asked, answered]);
    expect([chat.status, finishes.length]).toEqual(["ready", 2]);
  });

  test("is told plainly when it is refused", async () => {
    world.server.fault("POST", { status: 409, code: "message-exists" });
    const { chat, errors, finishes } = connect();
    await chat.sendMessage({ text: "hi" });
    expect([chat.status, finishes]).toEqual(["error", [{ ...clean, isError: true }]]);
    expect(errors[0]).toMatchObject({ code: "http", status: 409, message: "The message-exists story." });
  });

  test("asks anew and edits", async () => {
    const { chat } = connect();
    await chat.sendMessage({ text: "hi" });
    await chat.regenerate();
    expect(said(chat)).toEqual([asked, { ...answered, id: "a2" }]);
    await chat.sendMessage({ text: "hi", messageId: chat.messages[0]?.id ?? "" });
    expect(said(chat)).toEqual([asked, { ...answered, id: "a3" }]);
    const posts = world.server
      .of("POST")
      .map(({ body }) => [body.trigger, (body.messages as object[]).length]);
    expect(posts).toEqual([
      ["submit-message", 1],
      ["regenerate-message", 1],
      ["submit-message", 1],
    ]);
  });

  test("is let go twice by strict effects, and resumes once in the end", async () => {
    const run = world.server.begin("c1", ...reply("a1").slice(0, 4));
    const { chat, finishes } = connect();
    const first = chat.resumeStream();
    const second = chat.resumeStream();
    await first;
    await until(() => said(chat)[0]?.text === half.text);
    run.append(...reply("a1").slice(4));
    await second;
    await settle();
    expect(said(chat)).toEqual([answered]);
    expect([chat.status, finishes.filter(({ isAbort }) => !isAbort)]).toEqual(["ready", [clean]]);
  });
});
