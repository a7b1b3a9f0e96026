/** A new id for a chat. Not `crypto.randomUUID`: a phone reaches the demo over plain http, which is no secure context. */
export function newChatId(): string {
  const alphabet = "0123456789abcdefghijklmnopqrstuvwxyz";
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => alphabet[byte % alphabet.length]).join("");
}

/** The end of an id: enough to tell runs apart in a narrow column. */
export function shortId(id: string): string {
  return id.length > 8 ? `…${id.slice(-6)}` : id;
}
