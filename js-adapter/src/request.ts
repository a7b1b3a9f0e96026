/** How a request is made: the application's headers, and who is asking. */
import type { Clock } from "./backoff.js";
import { CLIENT_HEADER, VERSION } from "./protocol.js";

export type Resolvable<T> = T | (() => T | Promise<T>);
export type HeaderFields = Record<string, string> | Headers;

export interface RequestOptions {
  fetch?: typeof globalThis.fetch;
  /** Sent with every request. A function is asked before each attempt, so that a token can be renewed. */
  headers?: Resolvable<HeaderFields>;
  credentials?: RequestCredentials;
  /** Major version of `ai` in this application, so that only chunks are sent that it knows. */
  ai?: 5 | 6 | 7;
}

export type Request = (
  url: string,
  init: RequestInit,
  ...fields: (HeaderFields | undefined)[]
) => Promise<Response>;

export function createRequest(options: RequestOptions): Request {
  const { ai } = options;
  const client = `shim/${VERSION}${ai === undefined ? "" : `; ai=${ai}`}`;
  return async (url, init, ...fields) => {
    const headers = new Headers(await resolve(options.headers));
    for (const more of fields) {
      for (const [name, value] of new Headers(more)) headers.set(name, value);
    }
    headers.set(CLIENT_HEADER, client);
    const credentials = options.credentials && { credentials: options.credentials };
    return (options.fetch ?? globalThis.fetch)(url, { ...init, ...credentials, headers });
  };
}

/** Reads an answer whole, so that one that is cut, or a portal's page, is asked for again. */
export async function whole(asked: Promise<Response>): Promise<Response> {
  const response = await asked;
  if (!response.ok || response.status === 204) return response;
  const text = await response.text();
  JSON.parse(text);
  return new Response(text, response);
}

export const JSON_FIELDS = { "Content-Type": "application/json" };

export const resolve = <T>(value: Resolvable<T> | undefined): T | undefined | Promise<T> =>
  typeof value === "function" ? (value as () => T | Promise<T>)() : value;

/** `randomUUID` is missing on pages that were not served over HTTPS. An id has to be unique, not secret. */
export function createId(clock: Clock): string {
  const part = () => clock.random().toString(36).slice(2);
  return globalThis.crypto?.randomUUID?.() ?? `${clock.now().toString(36)}-${part()}${part()}`;
}
