// `resumable-stream` with Redis, as the AI SDK's pages on resuming describe it: the process that runs the model keeps the
// reply in its memory and relays it over Redis to readers that come later.
// Arguments: port, redis:// URL.
import { createServer } from "node:http";
import { createClient } from "redis";
import { createResumableStreamContext } from "resumable-stream";

const [port, url] = process.argv.slice(2);
const [publisher, subscriber] = [createClient({ url }), createClient({ url })];
await Promise.all([publisher.connect(), subscriber.connect()]);
const context = createResumableStreamContext({ waitUntil: () => {}, publisher, subscriber });
const seconds = () => Number(process.hrtime.bigint()) / 1e9;

function tokens(asked) {
  const [, rate, count, hold] = /rate=(\d+) tokens=(\d+) hold=(\d+)/.exec(asked).map(Number);
  const begun = seconds();
  let number = 0;
  let timer;
  return new ReadableStream({
    async pull(controller) {
      if (number === count) {
        await new Promise((resolve) => setTimeout(resolve, hold * 1000));
        controller.enqueue("data: [DONE]\n\n");
        controller.close();
        return;
      }
      const due = rate ? begun + number / rate : seconds();
      const wait = (due - seconds()) * 1000;
      if (wait > 0) await new Promise((resolve) => (timer = setTimeout(resolve, wait)));
      number++;
      const delta = `@${due.toFixed(5).padStart(16, "0")}`;
      controller.enqueue(`data: ${JSON.stringify({ type: "text-delta", id: "0", delta })}\n\n`);
    },
    cancel: () => clearTimeout(timer),
  });
}

async function answer(response, stream) {
  if (!stream) return void response.writeHead(204).end();
  response.writeHead(200, { "Content-Type": "text/event-stream", Connection: "close" });
  const reader = stream.getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return void response.end();
    if (!response.write(value)) await new Promise((resolve) => response.once("drain", resolve));
  }
}

async function handle(request, response) {
  const [, , chat] = request.url.split("/");
  if (request.method === "GET") {
    if (chat === undefined) return void response.end("ready");
    return answer(response, await context.resumeExistingStream(chat));
  }
  let body = "";
  for await (const part of request) body += part;
  await answer(response, await context.createNewResumableStream(chat, () => tokens(body)));
}

createServer((request, response) => {
  // A stream whose producer has died rejects after a while.
  handle(request, response).catch(() => (response.headersSent ? response.destroy() : response.writeHead(500).end()));
}).listen(Number(port), "127.0.0.1");
