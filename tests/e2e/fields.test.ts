/**
 * Every field that a real server gives of a session with everything in it is one that this package knows, and the other way
 * round. A type that gets a field, or loses one, does not compile here; a server that does fails.
 */
import { readFileSync } from "node:fs";
import { createSessions, type Session, type Sessions } from "strandline";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import type { Asked, Hydrated } from "../../js-adapter/src/ag-ui.js";
import type { Branch } from "../../js-adapter/src/branch.js";
import type {
  Active,
  AnnotationSummary,
  Author,
  Older,
  SessionDecision,
  SessionEvent,
  SessionInfo,
  SessionNote,
  SessionReader,
  SessionRun,
  Snapshot,
  SpawnedMessage,
} from "../../js-adapter/src/content.js";
import type { SessionMessage } from "../../js-adapter/src/fold.js";
import type { Annotation, Decided, Sent, StopResult } from "../../js-adapter/src/session.js";
import { TestServer } from "./server.js";
import { eventually, fresh } from "./support.js";

vi.setConfig({ testTimeout: 30_000, hookTimeout: 60_000 });

/** The fields of a type: those that are always there, and those that may be missing. */
type Known<T> = { [K in keyof T]-?: object extends Pick<T, K> ? "maybe" : "always" };
type Json = Record<string, unknown>;

/** `beside`: what the package has no use for, and why. */
function shape<T>(name: string, known: Known<T>, beside: Record<string, string> = {}) {
  const fields: Record<string, string> = { ...beside, ...(known as Record<string, string>) };
  const missing = new Set(Object.keys(fields));
  const check = (...found: unknown[]) => {
    for (const each of found as Json[]) {
      const names = Object.keys(each);
      expect(
        names.filter((field) => !(field in fields)),
        `${name}: not known`,
      ).toEqual([]);
      const due = Object.keys(fields).filter((field) => fields[field] !== "maybe");
      expect(
        due.filter((field) => !names.includes(field)),
        `${name}: not given`,
      ).toEqual([]);
      for (const field of names) missing.delete(field);
    }
  };
  shapes.push(() => expect([...missing], `${name}: never seen`).toEqual([]));
  return check;
}
const shapes: (() => void)[] = [];

let server: TestServer;
let sessions: Sessions;
beforeAll(async () => {
  server = await TestServer.begin();
  sessions = createSessions({ url: `${server.url}/api/sessions`, device: "phone" });
});
afterAll(async () => {
  sessions?.close();
  await server?.close();
});

async function json(path: string, method = "GET", body?: object): Promise<Json> {
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch(server.url + path, { method, headers, body: JSON.stringify(body) ?? null });
  expect(answer.ok, `${method} ${path}`).toBe(true);
  return (await answer.json()) as Json;
}

/** A session in which something of everything was said, and its routes. While this runs, a reply goes on in it. */
async function everything(id: string, onEvent: (event: SessionEvent) => void): Promise<Session> {
  const session = sessions.open(id);
  session.onEvent(onEvent);
  session.subscribe(() => {});
  const parts = (text: string) => [{ type: "text", text }];
  const answered = async (text: string, more: object = {}) => {
    const { run } = await session.send({ parts: parts(text), ...more });
    await eventually(`${text} is answered`, () =>
      session.getSnapshot().runs.some((one) => one.id === run && one.endedAt !== null),
    );
  };
  await answered("count to 3 every 1 ms", { id: "u1", metadata: { mood: "calm" } });
  const { run } = await session.send(undefined, { trigger: "regenerate-message" });
  await eventually("it has a sibling", () => session.getSnapshot().runs.at(-1)?.endedAt);
  expect(session.getSnapshot().runs.at(-1)?.id).toBe(run);
  await session.edit("u1", parts("count to 2 every 1 ms"), { mood: "glad" });
  const message = session.getSnapshot().messages[1]?.id as string;
  await session.annotate({
    message,
    type: "citation",
    data: { url: "https://a.example" },
    range: { part: 1 },
  });
  for (let n = 0; n < 21; n++) await session.annotate({ message, type: "reaction", data: { name: `r${n}` } });
  await answered("delegate");
  await answered("fail after 2");
  await answered("ask both within 600000 ms");
  return session;
}

/** The table of PROTOCOL.md §8.9: kind of event to the names of its fields. */
function kinds(): Map<string, Set<string>> {
  const text = readFileSync(new URL("../../PROTOCOL.md", import.meta.url), "utf8");
  const [, table = ""] = /\| kind \| fields \|\n(.+?)\n\n/s.exec(text) ?? [];
  const names = (cell = "") => [...cell.matchAll(/`([a-z_-]+)`/g)].map(([, name]) => name as string);
  const rows = table.split("\n").map((row) => row.split("|").slice(1, 3).map(names));
  return new Map(rows.map(([kind, fields]) => [kind?.[0] as string, new Set(fields)]));
}

test("what a server gives of a session is what this package knows", async () => {
  const id = fresh("everything");
  const events: SessionEvent[] = [];
  const session = await everything(id, (event) => events.push(event));
  const here = `/api/sessions/${id}`;

  const info = shape<SessionInfo>("a session", {
    id: "always",
    title: "always",
    archived: "always",
    createdAt: "always",
    updatedAt: "always",
    activeRun: "always",
    submit: "always",
    pending: "always",
  });
  const waiting = await sessions.list({ pending: true, limit: 1 });
  expect(waiting.sessions.map((one) => [one.id, one.pending])).toEqual([[id, 2]]);
  expect(session.getSnapshot().info).toEqual(waiting.sessions[0]);
  const list = await json("/api/sessions?archived=any&pending=true");
  shape<Awaited<ReturnType<Sessions["list"]>>>("the list", { sessions: "always", next: "always" })(list);
  info(...(list.sessions as Json[]));
  const changed = await json(here, "PATCH", { title: "Everything" });
  expect(Object.keys(changed)).toEqual(["session"]);
  info(changed.session);

  const decision = shape<SessionDecision>("a decision", {
    id: "always",
    kind: "always",
    run: "always",
    messageId: "always",
    toolCallId: "always",
    tool: "always",
    input: "always",
    roles: "always",
    createdAt: "always",
    expiresAt: "always",
    outcome: "always",
    value: "always",
    by: "always",
    at: "always",
  });
  const pending = (await json(`${here}/decisions`)).decisions as (Json & SessionDecision)[];
  decision(...pending, ...session.getSnapshot().decisions);
  const [approval, tool] = ["approval", "tool"].map((kind) => pending.find((one) => one.kind === kind)?.id);
  const asked = (await json(`/api/tanstack?threadId=${id}`)).interrupts;
  shape<Asked>("interrupts", { runId: "always", pending: "always" })(asked);
  const sent = shape<Sent>("what was sent", {
    run: "always",
    messageId: "always",
    cursor: "always",
    pending: "maybe",
    steered: "maybe",
  });
  // A chat answers one of them with its copy of the reply.
  const reply = session.getSnapshot().messages.at(-1) as SessionMessage;
  const answers = reply.parts.map((part) =>
    part.state === "approval-requested"
      ? { ...part, state: "approval-responded", approval: { id: approval, approved: true } }
      : part,
  );
  const copy = { message: { ...reply, parts: answers }, trigger: "submit-message", messageId: reply.id };
  const left = await json(`${here}/messages`, "POST", copy);
  sent(left);
  expect(left).toMatchObject({ run: null, pending: [tool] });
  await eventually("the page waits for one", () => session.getSnapshot().decisions.length === 1);
  expect(session.getSnapshot().info?.pending).toBe(1);
  // The reply that goes on says that again, a word every 20 ms.
  const output = { words: "word ".repeat(600) };
  const taken = await json(`${here}/decisions/${tool}`, "POST", { output });
  shape<Decided>("what was decided", { decision: "always", run: "always", messageId: "always" })(taken);
  decision(taken.decision, ...((await json(`${here}/decisions?all=true`)).decisions as Json[]));

  const say = (text: string, metadata?: object) => ({
    message: { id: fresh("u"), role: "user", parts: [{ type: "text", text }], metadata },
  });
  sent(await json(`${here}/steer`, "POST", say("faster", { mood: "hurried" })));
  sent(await json(`${here}/messages`, "POST", { ...say("help"), submit: "queue" }));

  const look = await json(here);
  shape<Snapshot>(
    "a snapshot",
    {
      session: "always",
      messages: "always",
      versions: "always",
      branches: "always",
      authors: "always",
      annotations: "always",
      page: "always",
      active: "always",
      runs: "always",
      readers: "always",
      decisions: "always",
      spawned: "always",
    },
    { reader: "the client has its name", cursor: "the id of the frame" },
  )(look);
  info(look.session);
  const older = await json(`${here}/messages?limit=3`);
  shape<Older>(
    "a page",
    {
      messages: "always",
      versions: "always",
      branches: "always",
      authors: "always",
      annotations: "always",
      page: "always",
    },
    {
      activeRun: "of the feed",
      runs: "of the feed",
      decisions: "of the feed",
      cursor: "the feed is there already",
      spawned: "the feed has the newest",
    },
  )(older);
  shape<Older["page"]>("a place", { before: "always" }, { after: "pages are read backwards" })(older.page);
  const active = shape<Active>("an active run", {
    run: "always",
    messageId: "always",
    chunks: "always",
    notes: "always",
    continues: "maybe",
  });
  active(...(look.active as Json[]));
  const notes = (look.active as { notes: Json[] }[]).flatMap((one) => one.notes);
  expect(notes.map((note) => Object.keys(note).sort())).toEqual([
    ["at", "by", "message_id", "metadata", "parts"],
  ]);
  await eventually("the page has the note", () => session.getSnapshot().notes.length === 1);
  shape<SessionNote>("a note", {
    id: "always",
    run: "always",
    by: "always",
    at: "always",
    parts: "always",
    metadata: "maybe",
  })(...session.getSnapshot().notes);

  const message = shape<Omit<SessionMessage, "pending">>("a message", {
    id: "always",
    role: "always",
    parts: "always",
    metadata: "maybe",
  });
  message(...(look.messages as Json[]), ...(older.messages as Json[]));
  const spawned = shape<SpawnedMessage>("a spawned message", {
    message: "always",
    run: "always",
    agent: "always",
    parent: "always",
  });
  spawned(...(look.spawned as Json[]));
  const author = shape<Author>("an author", { by: "always", editedBy: "maybe" });
  author(...Object.values(look.authors as Json), ...Object.values(older.authors as Json));
  shape<Branch>("a branch", { index: "always", count: "always", versions: "always" })(
    ...Object.values(look.branches as Json),
  );
  const summary = shape<AnnotationSummary>("a summary", { count: "always", names: "maybe", others: "maybe" });
  summary(...Object.values(look.annotations as Json).flatMap((types) => Object.values(types as Json)));
  shape<SessionRun>("a run", {
    id: "always",
    messageId: "always",
    status: "always",
    reason: "always",
    error: "always",
    agent: "always",
    spawned: "always",
    parentRun: "always",
    createdAt: "always",
    endedAt: "always",
  })(...(look.runs as Json[]));
  const reader = shape<SessionReader>("a reader", {
    id: "always",
    user: "always",
    device: "always",
    client: "always",
    wire: "always",
    run: "always",
    connected: "always",
    since: "always",
    leftAt: "always",
    sent: "always",
    acknowledged: "always",
  });
  reader(...(look.readers as Json[]), ...((await json(`${here}/readers`)).readers as Json[]));

  const about = session.getSnapshot().messages[1]?.id as string;
  const single = shape<Annotation>("an annotation", {
    id: "always",
    message: "always",
    type: "always",
    by: "always",
    at: "always",
    data: "always",
    range: "maybe",
  });
  const annotations = await json(`${here}/annotations?message=${about}`);
  shape<Awaited<ReturnType<Session["loadAnnotations"]>>>("annotations", {
    annotations: "always",
    next: "always",
  })(annotations);
  single(...(annotations.annotations as Json[]));

  const hydrated = shape<Hydrated>("a conversation", {
    messages: "always",
    activeRun: "always",
    interrupts: "always",
    page: "always",
    cursor: "always",
    leaf: "always",
    more: "always",
    seq: "always",
    branches: "always",
    authors: "always",
  });
  const place = shape<Hydrated["page"]>("its page", { truncated: "always", cursor: "maybe" });
  for (const query of ["", "&limit=2"]) {
    const loaded = await json(`/api/tanstack?threadId=${id}${query}`);
    hydrated(loaded);
    place(loaded.page);
    shape<{ runId: string }>("its run", { runId: "always" })(loaded.activeRun);
    author(...Object.values(loaded.authors as Json));
  }

  const stopped = shape<StopResult>("a stop", {
    run: "always",
    status: "always",
    stopped: "always",
    reason: "maybe",
    cursor: "maybe",
  });
  const stops = await json(`${here}/stop`, "POST", { all: true });
  expect(Object.keys(stops)).toEqual(["runs"]);
  expect((stops.runs as Json[]).length).toBeGreaterThan(1);
  stopped(...(stops.runs as Json[]), await json(`${here}/stop`, "POST", {}));

  for (const check of shapes) check();
  const known = kinds();
  for (const { type, seq, at, ...fields } of events.filter((event) => event.seq !== undefined))
    expect(
      Object.keys(fields).filter((name) => !known.get(type)?.has(name)),
      type,
    ).toEqual([]);

  await eventually("the page shows what the server has", async () => {
    const now = (await json(here)) as unknown as Snapshot;
    const { messages, authors, branches, info: shown, notes: told } = session.getSnapshot();
    expect({ messages, authors, branches, info: shown, told }).toEqual({
      messages: now.messages,
      authors: now.authors,
      branches: now.branches,
      info: now.session,
      told: [],
    });
    return true;
  });
});
