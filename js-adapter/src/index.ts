/** The browser side of Strandline: sessions. The transport for AI SDK chats is in `strandline/ai-sdk`. */

export type { Branch, Branches } from "./branch.js";
export {
  StrandlineError,
  type StrandlineErrorCode,
  StrandlineGaveUpError,
  StrandlineGoneError,
  StrandlineHttpError,
  StrandlineProtocolError,
  StrandlineResyncError,
} from "./errors.js";
export { type SubmitPolicy, VERSION } from "./protocol.js";
export type {
  Annotation,
  AnnotationSummary,
  Annotations,
  AnnotationsOptions,
  Answer,
  Author,
  Authors,
  Decided,
  MessagePart,
  NewAnnotation,
  NewMessage,
  RunReply,
  SendOptions,
  Sent,
  Session,
  SessionDecision,
  SessionEvent,
  SessionInfo,
  SessionMessage,
  SessionNote,
  SessionReader,
  SessionRun,
  SessionStatus,
  SessionView,
  SpawnedMessage,
  SteerOptions,
  StopManyOptions,
  StopOptions,
  StopResult,
} from "./session.js";
export { createSessions, type ListOptions, type Sessions, type SessionsOptions } from "./sessions.js";
export type { StatusDetail, StreamStatus } from "./status.js";
export { reportVisibility } from "./wake.js";
