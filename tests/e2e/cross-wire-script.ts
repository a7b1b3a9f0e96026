/** Replies that are made up by chance: chunks of every kind, in every order that makes a valid reply. */
import { type Random, range } from "./support.js";

export type Chunk = { type: string; [field: string]: unknown };

/** Chunks that the agent adds at once, and how many ms it waits then. */
export interface Act {
  chunks: Chunk[];
  pause: number;
}

/** None is nothing but space: TanStack AI does not keep a message that has no other text. */
const WORDS = [
  "tide",
  "größer",
  "😀",
  "a\nb",
  'qu"ote',
  "back\\slash",
  "ключ",
  "{",
  "</p>",
  "a\u2028b",
  "1",
  "data: x",
];
const NAMES = ["weather", "search-web", "run_code"];
const OUTPUTS: unknown[] = [
  { celsius: 7 },
  [1, null, "x"],
  "plain",
  '"quoted"',
  "42",
  "[not json",
  "",
  null,
  0,
  false,
];
const URLS = ["https://example.org/a", "https://example.org/b?c=d"];
const METADATA = [
  { model: "m-1" },
  { usage: { input: 3 } },
  { usage: { output: { total: 9 } } },
  { tags: ["a"] },
];

export class Author {
  private made = 0;

  constructor(private readonly chance: Random) {}

  /** A reply of one to three steps. */
  script(): Act[] {
    const chunks: Chunk[] = [];
    if (this.one(3)) chunks.push({ type: "start", messageMetadata: this.of(METADATA) });
    for (const _ of range(1 + this.below(3))) chunks.push(...this.step());
    if (this.one(3)) chunks.push({ type: "finish", messageMetadata: this.of(METADATA) });
    if (this.one(8)) chunks.push({ type: "error", errorText: "The model is tired." });
    const acts: Act[] = [];
    while (chunks.length > 0) {
      acts.push({ chunks: chunks.splice(0, 1 + this.below(4)), pause: 1 + this.below(8) });
    }
    return acts;
  }

  private step(): Chunk[] {
    // Text parts follow one another: no AG-UI client could keep two apart that are open at once.
    const texts = this.some(3, () => this.part("text")).flat();
    const lanes = [
      texts,
      ...this.some(2, () => this.part("reasoning")),
      ...this.some(3, () => this.tool()),
      this.some(4, () => this.other()),
    ].filter((lane) => lane.length > 0);
    const woven: Chunk[] = [];
    while (lanes.length > 0) {
      const lane = this.of(lanes);
      woven.push(...lane.splice(0, 1 + this.below(3)));
      if (lane.length === 0) lanes.splice(lanes.indexOf(lane), 1);
    }
    return [{ type: "start-step" }, ...woven, { type: "finish-step" }];
  }

  private part(kind: "text" | "reasoning"): Chunk[] {
    // Now and then the id of an earlier part is used again, which the server renames.
    const id = kind === "text" && this.one(4) ? "again" : this.name(kind);
    const deltas = this.some(6, () => ({ type: `${kind}-delta`, id, delta: `${this.of(WORDS)} ` }));
    return [{ type: `${kind}-start`, id }, ...deltas, { type: `${kind}-end`, id }];
  }

  private tool(): Chunk[] {
    const toolCallId = this.name("call");
    const dynamic = this.one(4) ? { dynamic: true } : {};
    const call = { toolCallId, toolName: this.of(NAMES), ...dynamic };
    const input = { city: this.of(WORDS), n: this.below(9), deep: { list: [this.of(WORDS)] } };
    const chunks: Chunk[] = [];
    if (!this.one(3)) {
      chunks.push({ type: "tool-input-start", ...call });
      for (const inputTextDelta of this.pieces(JSON.stringify(input))) {
        chunks.push({ type: "tool-input-delta", toolCallId, inputTextDelta });
      }
      // The agent may leave it at that: the end of the run closes the call.
      if (this.one(10)) return chunks;
    }
    if (this.one(8)) {
      return [...chunks, { type: "tool-input-error", ...call, input, errorText: "No such tool." }];
    }
    chunks.push({ type: "tool-input-available", ...call, input });
    if (this.one(10)) return chunks;
    if (this.one(5))
      return [...chunks, { type: "tool-output-error", toolCallId, errorText: "It is broken." }];
    if (this.one(10)) return [...chunks, { type: "tool-output-denied", toolCallId }];
    const early = this.some(2, () => ({ ...this.output(toolCallId), preliminary: true }));
    return [...chunks, ...early, this.output(toolCallId)];
  }

  private output(toolCallId: string): Chunk {
    return { type: "tool-output-available", toolCallId, output: this.of(OUTPUTS) };
  }

  private other(): Chunk {
    const url = this.of(URLS);
    const data = { step: this.below(9) };
    const makes: (() => Chunk)[] = [
      () => ({ type: "source-url", sourceId: this.name("source"), url, title: this.of(WORDS) }),
      () => ({
        type: "source-document",
        sourceId: this.name("source"),
        mediaType: "application/pdf",
        title: "T",
      }),
      () => ({ type: "file", url, mediaType: "image/png" }),
      () => ({ type: "data-status", id: "status", data }),
      () => ({ type: "data-note", data }),
      () => ({ type: "data-tick", data, transient: true }),
      () => ({ type: "message-metadata", messageMetadata: this.of(METADATA) }),
      () => ({ type: "custom", kind: "openai.compaction" }),
    ];
    return this.of(makes)();
  }

  /** The text in pieces of one to nine characters. */
  private pieces(text: string): string[] {
    const characters = [...text];
    const found: string[] = [];
    while (characters.length > 0) found.push(characters.splice(0, 1 + this.below(9)).join(""));
    return found;
  }

  private some<T>(most: number, make: () => T): T[] {
    return range(this.below(most + 1)).map(make);
  }

  private name(prefix: string): string {
    this.made += 1;
    return `${prefix}-${this.made}`;
  }

  private below(limit: number): number {
    return Math.floor(this.chance() * limit);
  }

  private one(of: number): boolean {
    return this.below(of) === 0;
  }

  private of<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T;
  }
}
