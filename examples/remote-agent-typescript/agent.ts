/**
 * An agent in TypeScript, with nothing but `fetch`: it listens for runs, takes them, and says what it has to say in
 * numbered requests. Each request is repeated until it is answered; the number tells the server what it has already.
 *
 *     node agent.ts http://127.0.0.1:8000/api/agents
 */
declare const process: { argv: string[] };

const server = process.argv[2] ?? "http://127.0.0.1:8000/api/agents";
const agent = "counter";
/** What this worker calls itself. With the name that it had before a restart it takes its own runs again at once. */
const holder = process.argv[3] ?? crypto.randomUUID();
const headers = { "content-type": "application/json" }; // and `authorization`, where the server asks who you are

interface Claimed {
  state: "running" | "over";
  run: string;
  producer: number;
  sequence: number;
  /** Seconds for which this worker may be silent. */
  lease: number;
  prompt: { role: string; content: string }[];
  /** What was decided, where the run goes on that asked for it. */
  decisions: { toolCallId: string; outcome: string }[];
  /** How many notes earlier takings of this run have taken, and how many wait. */
  taken: number;
  notes: number;
}

/** Something that somebody tells the agent while it answers. */
interface Note {
  id: string;
  parts: { type: string; text?: string }[];
}

/** What an agent can do: each returns when it may go on. `signal` aborts when somebody has stopped the reply. */
interface Run extends Claimed {
  signal: AbortSignal;
  say(text: string): Promise<void>;
  /** Anything else: chunks of the AI SDK's UI message stream. */
  add(...chunks: object[]): Promise<void>;
  takeNotes(): Promise<Note[]>;
}

const FAR = 100_000;

/** Your model goes here. */
async function reply(run: Run): Promise<void> {
  const asked = wish(String(run.prompt.findLast((message) => message.role === "user")?.content));
  if (!asked) return run.say("Ask me to count to 50 every 100 ms.");
  if (asked.to > FAR && run.decisions.length === 0) {
    const call = { toolCallId: crypto.randomUUID(), toolName: "count" };
    // A reply that ends with such a request is suspended; some worker is given it when somebody has decided.
    return run.add(
      { type: "start-step" },
      { type: "tool-input-start", ...call },
      { type: "tool-input-available", ...call, input: { to: asked.to } },
      { type: "tool-approval-request", approvalId: crypto.randomUUID(), toolCallId: call.toolCallId },
    );
  }
  for (const { toolCallId, outcome } of run.decisions) {
    if (outcome !== "approved") return run.say("Then not.");
    await run.add({ type: "tool-output-available", toolCallId, output: "counting" });
  }
  let { to } = asked;
  for (let number = 1; number <= to && !run.signal.aborted; number += 1) {
    await run.say(`${number} `);
    await pause(asked.every);
    for (const note of await run.takeNotes()) {
      to = wish(note.parts.map((part) => part.text).join(" "))?.to ?? to;
      await run.say(`(to ${to}) `);
    }
  }
}

/** How far to count, and how many milliseconds apart. */
function wish(text: string): { to: number; every: number } | undefined {
  const found = text.match(/count to (\d+)(?: every (\d+) ms)?/);
  return found ? { to: Number(found[1]), every: Number(found[2] ?? 50) } : undefined;
}

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** The server will not have this, however often it is asked. */
class Refused extends Error {}

/** A request, again and again until there is an answer. Safe, since every request has its number or its name. */
async function ask<T>(path: string, body: object): Promise<T> {
  for (let wait = 100; ; wait = Math.min(5000, wait * 2)) {
    let answer: Response | undefined;
    try {
      const signal = AbortSignal.timeout(30_000);
      answer = await fetch(`${server}/${path}`, {
        method: "POST",
        headers,
        body: JSON.stringify(body),
        signal,
      });
      if (answer.ok) return (await answer.json()) as T;
    } catch {
      // No connection, or one that was cut: the answer may be lost, so we ask again.
    }
    if (answer && answer.status < 500 && ![408, 425, 429].includes(answer.status)) {
      throw new Refused(`${path}: ${answer.status} ${await answer.text()}`);
    }
    await pause(wait * (0.5 + Math.random() / 2));
  }
}

interface Answer {
  state: "running" | "over";
  /** How many notes wait. */
  notes?: number;
  told?: Note[];
}

/** The runs that are being written: what to do with what the server says of them. */
const writing = new Map<string, { over: AbortController; noted: boolean }>();

/** One run: claim it, let the agent speak, send what it says, say how it ended. */
async function take(id: string): Promise<void> {
  const over = new AbortController();
  const heard = { over, noted: false };
  writing.set(id, heard);
  const claimed = await ask<Claimed>(`runs/${id}/claim`, { holder, claim: crypto.randomUUID() });
  if (claimed.state === "over") return;
  heard.noted ||= claimed.notes > 0;

  /** Asks about this run. A server that answers `over` has ended it: somebody stopped it, or it took too long. */
  const about = async (question: string, body: object): Promise<Answer> => {
    if (over.signal.aborted) return { state: "over" };
    const answer = await ask<Answer>(`runs/${id}/${question}`, { producer: claimed.producer, ...body });
    if (answer.state === "over") over.abort();
    if (answer.notes) heard.noted = true;
    return answer;
  };

  // Requests that count have a number, and are sent one after the other.
  let { sequence, taken } = claimed;
  let last: Promise<unknown> = Promise.resolve();
  const numbered = (question: string, body: object): Promise<Answer | undefined> => {
    const answer = last
      .then(() => {
        sequence += 1;
        return about(question, { sequence, ...body });
      })
      .catch((error): undefined => {
        console.error(String(error)); // another worker writes this run by now, for example
        over.abort();
      });
    last = answer;
    return answer;
  };

  // What is said while a request is under way goes into the next one: few requests, however fast the model is.
  let unsent = "";
  let sending: Promise<void> | undefined;
  const flush = (): void => {
    if (unsent) void numbered("append", { text: unsent });
    unsent = "";
  };
  const gather = async (): Promise<void> => {
    await pause(40);
    await last;
    sending = undefined;
    flush();
  };
  const run: Run = {
    ...claimed,
    signal: over.signal,
    async say(text) {
      unsent += text;
      sending ??= gather();
      if (unsent.length > 100_000) await sending; // the server is behind: wait for it
    },
    async add(...chunks) {
      flush();
      await numbered("append", { chunks });
    },
    async takeNotes() {
      if (!heard.noted) return [];
      heard.noted = false;
      flush();
      const told = (await numbered("steering", { taken }))?.told ?? [];
      taken += told.length;
      return told;
    },
  };

  const beat = setInterval(
    () => {
      about("heartbeat", {}).catch(() => over.abort());
    },
    (claimed.lease * 1000) / 3,
  );
  try {
    let end: object = { status: "completed" };
    try {
      await reply(run);
    } catch (error) {
      console.error(error);
      end = { status: "failed", error: "The reply failed. Please try again." };
    }
    flush();
    await last;
    await about("end", { sequence, ...end });
  } finally {
    clearInterval(beat);
  }
}

/** What the server says: which runs wait, which are over, and whose agent was told something. */
function told(frame: { type: string; run: string }): void {
  const mine = writing.get(frame.run);
  if (frame.type === "stop") mine?.over.abort();
  if (frame.type === "note" && mine) mine.noted = true;
  if (frame.type !== "run" || mine) return;
  take(frame.run)
    .catch((error) => console.error(String(error))) // taken by another worker, for example
    .finally(() => writing.delete(frame.run));
}

/** Listens for ever: server-sent events by hand, of which only `data:` lines matter here. */
async function listen(): Promise<never> {
  for (;;) {
    try {
      const answer = await fetch(`${server}/${agent}/runs?holder=${holder}`, { headers });
      if (answer.status < 500 && !answer.ok) throw new Refused(`${answer.status} ${await answer.text()}`);
      let rest = "";
      for await (const data of (answer.body as unknown as AsyncIterable<Uint8Array>) ?? []) {
        rest += decoder.decode(data, { stream: true });
        const lines = rest.split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines) if (line.startsWith("data: ")) told(JSON.parse(line.slice(6)));
      }
    } catch (error) {
      if (error instanceof Refused) throw error;
    }
    await pause(500 + Math.random() * 500); // it lists what still waits when we come back
  }
}

const decoder = new TextDecoder();
await listen();
