/** The browser side of Strandline. The transport for AI SDK chats is in `strandline/ai-sdk`. */
export * from "./errors.js";
export { VERSION } from "./protocol.js";
