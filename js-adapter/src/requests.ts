/**
 * What is asked of a session from here and shows when the feed says so: steering, deciding, branches, edits, annotations.
 * Each is repeated until it is answered, which changes nothing.
 */
import { discard } from "./connection.js";
import { StrandlineHttpError } from "./errors.js";
import { createId } from "./request.js";
import type {
  Answer,
  Decided,
  NewAnnotation,
  NewMessage,
  Sent,
  Session,
  SteerOptions,
  Wire,
} from "./session.js";

type Requests = Pick<
  Session,
  "steer" | "decide" | "selectBranch" | "edit" | "delete" | "annotate" | "unannotate" | "loadAnnotations"
>;

/** `poke` makes the feed try now, if it waits. */
export function createRequests(path: string, wire: Wire, poke: () => void): Requests {
  return {
    steer,
    decide,
    selectBranch: (message, index) => change("/branch", "POST", { message, index }),
    edit: (id, parts, metadata) => change(messagePath(id), "PATCH", { parts, metadata }),
    delete: (id) => change(messagePath(id), "DELETE"),
    annotate,
    unannotate,
    async loadAnnotations(message, options) {
      const { answer } = wire.call(`${path}/annotations`, { message, ...options }, {});
      return (await answer).json();
    },
  };

  async function steer(input: string | NewMessage, options: SteerOptions = {}): Promise<Sent> {
    const { run, body, headers } = options;
    const message = { id: createId(wire.clock), role: "user", ...partsOf(input) };
    const init = { method: "POST", body: JSON.stringify({ message, run, body }) };
    return (await (await wire.call(`${path}/steer`, {}, init, headers).answer).json()) as Sent;
  }

  async function decide(decision: string, given: Answer): Promise<Decided> {
    const init = { method: "POST", body: JSON.stringify(given) };
    const { answer } = wire.call(`${path}/decisions/${encodeURIComponent(decision)}`, {}, init);
    const result = (await (await answer).json()) as Decided;
    poke();
    return result;
  }

  async function change(where: string, method: string, body?: object): Promise<void> {
    const init = { method, ...(body && { body: JSON.stringify(body) }) };
    discard(await wire.call(path + where, {}, init).answer);
    poke();
  }

  async function annotate(annotation: NewAnnotation): Promise<string> {
    // With an id a repetition replaces what it repeats.
    const { id: named = createId(wire.clock) } = annotation;
    const body = JSON.stringify({ ...annotation, id: named });
    await wire.call(`${path}/annotations`, {}, { method: "POST", body }).answer.then(discard);
    return named;
  }

  async function unannotate(annotation: string): Promise<void> {
    const one = `${path}/annotations/${encodeURIComponent(annotation)}`;
    try {
      await wire.call(one, {}, { method: "DELETE" }).answer.then(discard);
    } catch (cause) {
      // It is gone: a repetition may say so.
      if (!(cause instanceof StrandlineHttpError) || cause.status !== 404) throw cause;
    }
  }
}

const messagePath = (id: string) => `/messages/${encodeURIComponent(id)}`;

export const partsOf = (input: string | NewMessage | undefined) =>
  typeof input === "string" ? { parts: [{ type: "text", text: input }] } : input;
