/** The browser side of Strandline. The transport for AI SDK chats is in `strandline/ai-sdk`. */
export {
  StrandlineError,
  type StrandlineErrorCode,
  StrandlineGaveUpError,
  StrandlineGoneError,
  StrandlineHttpError,
  StrandlineProtocolError,
  StrandlineResyncError,
} from "./errors.js";
export { VERSION } from "./protocol.js";
