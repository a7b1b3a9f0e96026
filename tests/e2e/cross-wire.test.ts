/**
 * One conversation on two wires: what an AI SDK chat shows and what a TanStack AI chat shows say the same, for replies
 * that are made up by chance, each on a network that cuts, with turns from either side.
 * `CROSS_WIRE_TRIALS` makes it look longer, `E2E_SEED` elsewhere.
 */
import { HttpAgent } from "@ag-ui/client";
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from "vitest";
import { MAJORS } from "./chat.js";
import { asAgUi, ofAgUi, ofAiSdk, ofTanStack, type Said } from "./cross-wire-content.js";
import { aiSdkPerson, livePerson, type Move, type Person, tanStackPerson } from "./cross-wire-people.js";
import { Author } from "./cross-wire-script.js";
import { CuttingProxy } from "./proxy.js";
import { type RunStatus, TestServer } from "./server.js";
import { eventually, fresh, pause, pool, type Random, range, trial } from "./support.js";
import { hydrated } from "./tanstack.js";

const TRIALS = Number(process.env.CROSS_WIRE_TRIALS ?? 60);
vi.setConfig({ testTimeout: 60_000 + TRIALS * 3000, hookTimeout: 60_000 });

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.begin();
});
afterAll(() => server?.close());

const KINDS = MAJORS.flatMap((major) => (["stock", "ours"] as const).map((kind) => ({ major, kind })));

/** A message that makes the agent say what was made up, and the text of that. */
async function written(chance: Random): Promise<{ move: Move; text: string }> {
  const name = fresh("script");
  const acts = new Author(chance).script();
  const response = await fetch(`${server.url}/test/scripts/${name}`, {
    method: "PUT",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(acts),
  });
  if (!response.ok) throw new Error(await response.text());
  const image = [undefined, "https://example.org/a.png", "data:image/png;base64,iVBORw0KGgo="][
    Math.floor(chance() * 3)
  ];
  const deltas = acts.flatMap(({ chunks }) => chunks).filter(({ type }) => type === "text-delta");
  return { move: { say: `perform ${name}`, image }, text: deltas.map(({ delta }) => delta).join("") };
}

/** What both wires give a page that is loaded now; they are the same. */
async function stored(id: string): Promise<Said[]> {
  const history = ofAiSdk((await server.settled(id)).messages);
  expect(ofTanStack((await hydrated(server.url, id)).messages)).toEqual(history);
  return history;
}

/** An AG-UI agent reads the reply from its start; it refuses what is not well-formed. Where it is cut, it has a part. */
async function readByAgent(id: string, chance: Random): Promise<void> {
  const { messages, runs } = await server.settled(id);
  const reply = ofAiSdk(messages).at(-1) as Said;
  const { run, status } = runs[reply.id] as RunStatus;
  const agentAt = (url: string) => {
    const agent = new HttpAgent({ url: `${url}/api/tanstack`, threadId: id });
    agent.addMessage({ id: "any", role: "user", content: "any" });
    return agent;
  };
  const proxy = await CuttingProxy.begin(server.port, () => ({ cutAfter: Math.floor(chance() * 3000) }));
  const cut = agentAt(proxy.url);
  await cut.runAgent({ runId: run }).catch(() => {});
  await proxy.close();
  expect(reply.text.startsWith(ofAgUi(cut.messages).text)).toBe(true);

  const agent = agentAt(server.url);
  await agent.runAgent({ runId: run }).catch((error: Error) => {
    if (status !== "failed") throw error;
  });
  const said = ofAgUi(agent.messages);
  // What was stopped in the middle of its input has a part of that text.
  if (status === "stopped")
    for (const [at, tool] of reply.tools.entries()) tool.input = said.tools[at]?.input;
  expect(said).toEqual(asAgUi(reply));
}

/** One acts, the other one comes to read it while it is written; perhaps somebody stops it. */
async function turn(id: string, actor: Person, reader: Person, move: Move, chance: Random): Promise<Said[]> {
  const { called } = await server.calls(id);
  const acted = actor.act(move);
  await eventually("the agent is called", async () => (await server.calls(id)).called > called);
  await pause(chance() * 150);
  const read = reader.read();
  if (chance() < 1 / 6) await server.stop(id);
  await Promise.all([acted, read]);
  const history = await stored(id);
  const known = ({ keepsOthers }: Person, all: Said[]) =>
    keepsOthers ? all : all.map((said) => ({ ...said, others: [] }));
  for (const person of [reader, actor]) {
    expect(known(person, person.shown()), person.name).toEqual(known(person, history));
  }
  return history;
}

describe("AI SDK and TanStack AI in one session", () => {
  test("say the same, wherever they are cut and whoever acts", async () => {
    // HttpAgent says there what its connections went through.
    const quiet = vi.spyOn(console, "error").mockImplementation(() => {});
    onTestFinished(() => quiet.mockRestore());
    const told = { cuts: 0, reloads: 0, tools: 0, others: 0 };
    await pool(range(TRIALS), 4, (number) =>
      trial("cross-wire", number, async (chance) => {
        const id = fresh("cross");
        const { major, kind } = KINDS[number % KINDS.length] as (typeof KINDS)[number];
        const people = [
          await aiSdkPerson(server, id, major, kind, chance),
          await (chance() < 1 / 3 ? livePerson : tanStackPerson)(server, id, chance),
        ] as const;
        try {
          let history: Said[] = [];
          let script = await written(chance);
          for (const [index, again] of [false, false, true].entries()) {
            // Turns alternate; the last one asks for another reply to what the other one said.
            const [actor, reader] = (number + index) % 2 === 0 ? people : [people[1], people[0]];
            if (!again) script = await written(chance);
            history = await turn(id, actor, reader, again ? "again" : script.move, chance);
            const { id: reply, text } = history.at(-1) as Said;
            const { status, reason } = (await server.history(id)).runs[reply] as RunStatus;
            if (status === "stopped") expect(script.text.startsWith(text)).toBe(true);
            else
              expect([reason, text]).toEqual([
                expect.stringMatching(/^(completed|agent-error)$/),
                script.text,
              ]);
            await readByAgent(id, chance);
          }
          expect(history.map(({ role }) => role)).toEqual(["user", "assistant", "user", "assistant"]);
          expect((await server.calls(id)).called).toBe(3);
          for (const { cuts, reloads } of people) {
            told.cuts += cuts;
            told.reloads += reloads;
          }
          told.tools += history.flatMap(({ tools }) => tools).length;
          told.others += history.flatMap(({ others }) => others).length;
        } finally {
          for (const person of people) await person.close();
        }
      }),
    );
    // Nothing was compared if nothing was said, and nothing was tried if nothing was cut.
    for (const count of Object.values(told)) expect(count).toBeGreaterThan(TRIALS / 4);
    console.info(`cross-wire: ${JSON.stringify(told)}`);
  });
});
