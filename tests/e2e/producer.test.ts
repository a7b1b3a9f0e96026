/** A route of the AI SDK, `streamText` and all, behind the agent of docs/producers-by-url.md. */
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { convertToModelMessages, streamText, type UIMessage } from "ai7";
import { MockLanguageModelV4, simulateReadableStream } from "ai7/test";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { freePort, type History, PythonServer } from "./server.js";

vi.setConfig({ testTimeout: 30_000, hookTimeout: 60_000 });

const model = new MockLanguageModelV4({
  doStream: async () => ({
    stream: simulateReadableStream({
      chunks: [
        { type: "stream-start", warnings: [] },
        { type: "text-start", id: "1" },
        { type: "text-delta", id: "1", delta: "High " },
        { type: "text-delta", id: "1", delta: "tide." },
        { type: "text-end", id: "1" },
        {
          type: "finish",
          finishReason: { unified: "stop", raw: "stop" },
          usage: {
            inputTokens: { total: 3, noCache: 3, cacheRead: 0, cacheWrite: 0 },
            outputTokens: { total: 2, text: 2, reasoning: 0 },
          },
        },
      ],
    }),
  }),
});

/** As in `app/api/chat/route.ts`. */
async function POST(request: Request): Promise<Response> {
  const { messages } = (await request.json()) as { messages: UIMessage[] };
  const result = streamText({ model, messages: await convertToModelMessages(messages) });
  return result.toUIMessageStreamResponse();
}

let route: Server;
let directory: string;
let server: PythonServer;

beforeAll(async () => {
  route = createServer(async (request, response) => {
    const body = Buffer.concat(await request.toArray());
    const answer = await POST(new Request("http://localhost/", { method: "POST", body }));
    response.writeHead(answer.status, Object.fromEntries(answer.headers));
    Readable.fromWeb(answer.body as Parameters<typeof Readable.fromWeb>[0]).pipe(response);
  }).listen(0, "127.0.0.1");
  await once(route, "listening");
  const page = readFileSync(new URL("../../docs/producers-by-url.md", import.meta.url), "utf8");
  const code = /```python\n(.*?)```/s.exec(page)?.[1] ?? "";
  const url = `http://127.0.0.1:${(route.address() as AddressInfo).port}/`;
  directory = await mkdtemp(join(tmpdir(), "strandline-producer-"));
  await writeFile(join(directory, "relay.py"), code.replace("https://agents.example.org/chat", url));
  const port = await freePort();
  const serve = ["-m", "strandline", "serve", "relay:app", "--port", String(port), "--log-level", "warning"];
  server = new PythonServer(port, serve, {}, "/api/readyz", directory);
  await server.start();
});

afterAll(async () => {
  await server?.end("SIGKILL");
  route?.close();
  if (directory) await rm(directory, { recursive: true, force: true });
});

test("its replies are kept, and it is asked with all that was said", async () => {
  for (const [id, text] of [
    ["u1", "How is the tide?"],
    ["u2", "And now?"],
  ]) {
    const messages = [{ id, role: "user", parts: [{ type: "text", text }] }];
    const answer = await fetch(`${server.url}/api/chat`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ id: "c1", messages }),
    });
    expect(await answer.text()).toMatch(/data: \[DONE\]\n\n$/);
  }
  const history = (await (await fetch(`${server.url}/api/chat/c1/messages`)).json()) as History;
  const said = history.messages.map(({ parts }) => parts.map(({ text }) => text ?? "").join(""));
  expect(said).toEqual(["How is the tide?", "High tide.", "And now?", "High tide."]);
  expect(Object.values(history.runs).map(({ status }) => status)).toEqual(["completed", "completed"]);
  const asked = model.doStreamCalls.at(-1)?.prompt.map(({ role }) => role);
  expect(asked).toEqual(["user", "assistant", "user"]);
});
