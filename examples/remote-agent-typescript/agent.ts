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
}

/** Your model goes here. `say` returns when the words may go on; `signal` aborts when somebody has stopped the reply. */
async function count(run: Claimed, say: (text: string) => Promise<void>, signal: AbortSignal): Promise<void> {
  const asked = String(run.prompt.at(-1)?.content).match(/count to (\d+)(?: every (\d+) ms)?/);
  if (!asked) return say("Ask me to count to 50 every 100 ms.");
  for (let number = 1; number <= Number(asked[1]) && !signal.aborted; number += 1) {
    await say(`${number} `);
    await pause(Number(asked[2] ?? 50));
  }
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

const writing = new Map<string, AbortController>();

/** One run: claim it, let the agent speak, send what it says, say how it ended. */
async function take(id: string): Promise<void> {
  const over = new AbortController();
  writing.set(id, over);
  const run = await ask<Claimed>(`runs/${id}/claim`, { holder, claim: crypto.randomUUID() });
  if (run.state === "over") return;

  /** Asks about this run. A server that answers `over` has ended it: somebody stopped it, or it took too long. */
  const about = async (question: string, body: object): Promise<void> => {
    const { state } = await ask<{ state: string }>(`runs/${id}/${question}`, {
      producer: run.producer,
      ...body,
    });
    if (state === "over") over.abort();
  };

  // What is said while a request is under way goes into the next one: few requests, however fast the model is.
  let sequence = run.sequence;
  let unsent = "";
  let sending: Promise<void> | undefined;
  const send = async (): Promise<void> => {
    await pause(40);
    try {
      while (unsent && !over.signal.aborted) {
        const text = unsent;
        unsent = "";
        sequence += 1;
        await about("append", { sequence, text });
      }
    } catch (error) {
      console.error(String(error)); // another worker writes this run by now, for example
      over.abort();
    }
    sending = undefined;
  };
  const say = async (text: string): Promise<void> => {
    unsent += text;
    sending ??= send();
    if (unsent.length > 100_000) await sending; // the server is behind: wait for it
  };

  const beat = setInterval(
    () => {
      about("heartbeat", {}).catch(() => over.abort());
    },
    (run.lease * 1000) / 3,
  );
  try {
    let end: object = { status: "completed" };
    try {
      await count(run, say, over.signal);
    } catch (error) {
      console.error(error);
      end = { status: "failed", error: "The reply failed. Please try again." };
    }
    await sending;
    if (!over.signal.aborted) await about("end", { sequence, ...end });
  } finally {
    clearInterval(beat);
  }
}

/** What the server says: which runs wait, and which are over. */
function told(frame: { type: string; run: string }): void {
  if (frame.type === "stop") writing.get(frame.run)?.abort();
  if (frame.type !== "run" || writing.has(frame.run)) return;
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
