// What the real readers make of AG-UI events: the other half of test_ag_ui_differential.py and of
// test_ag_ui_source_differential.py.
// usage: node read_ag_ui.mjs; one JSON list of events per line in, one line out:
//   {"tanstack": [UIMessage], "agui": [Message], "state": any} | {"refused": text}
// The processor of @tanstack/ai as its client feeds it, and an agent of @ag-ui/client, which verifies what it is sent.
import { createInterface } from "node:readline";
import { AbstractAgent } from "@ag-ui/client";
import { restoreInboundChunk, StreamProcessor } from "@tanstack/ai/client";
import { from } from "rxjs";

console.warn = () => {};

function tanstack(events) {
  const processor = new StreamProcessor();
  processor.prepareAssistantMessage();
  for (const event of structuredClone(events)) processor.processChunk(restoreInboundChunk(event));
  processor.finalizeStream();
  return processor.getMessages();
}

class Replay extends AbstractAgent {
  constructor(events) {
    super({ threadId: "c" });
    this.events = events;
  }
  run() {
    return from(structuredClone(this.events));
  }
}

async function agui(events) {
  const agent = new Replay(events);
  await agent.runAgent({ runId: "r1" });
  return { agui: agent.messages, state: agent.state };
}

for await (const line of createInterface({ input: process.stdin })) {
  const events = JSON.parse(line);
  let answer;
  try {
    answer = { tanstack: tanstack(events), ...(await agui(events)) };
  } catch (error) {
    answer = { refused: String(error) };
  }
  console.log(JSON.stringify(answer));
}
