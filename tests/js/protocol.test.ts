/** The parts that other people's software looks at: names, addresses, errors, exports. */
import { readFileSync } from "node:fs";
import * as strandline from "strandline";
import * as aiSdk from "strandline/ai-sdk";
import * as overSessions from "strandline/ai-sdk/sessions";
import { describe, expect, test } from "vitest";
import { stopUrl, streamUrl } from "../../js-adapter/src/protocol.js";

const manifest = JSON.parse(readFileSync(new URL("../../js-adapter/package.json", import.meta.url), "utf8"));

test("the version that is sent is that of the package", () => {
  expect(strandline.VERSION).toBe(manifest.version);
});

test("little is exported", () => {
  const errors = [
    "StrandlineError",
    "StrandlineGaveUpError",
    "StrandlineGoneError",
    "StrandlineHttpError",
    "StrandlineProtocolError",
    "StrandlineResyncError",
  ];
  expect(Object.keys(strandline).sort()).toEqual(
    [...errors, "VERSION", "createSessions", "reportVisibility"].sort(),
  );
  expect(Object.keys(overSessions)).toEqual(["sessionTransport"]);
  expect(Object.keys(aiSdk).sort()).toEqual([...errors, "strandlineTransport"].sort());
});

test.each([
  ["/api/chat", "c1", undefined, "/api/chat/c1/stream"],
  ["/api/chat", "a/b ?", "r1", "/api/chat/a%2Fb%20%3F/stream?run=r1"],
  ["https://x.test/chat?tenant=a#top", "c1", "r 1", "https://x.test/chat/c1/stream?tenant=a&run=r%201#top"],
])("a resume of %s %s %s is sent to %s", (prefix, chatId, run, url) => {
  expect(streamUrl(prefix, chatId, run)).toBe(url);
});

test("a stop is sent beside it", () => {
  expect(stopUrl("/api/chat?tenant=a", "c1")).toBe("/api/chat/c1/stop?tenant=a");
});

describe("an error", () => {
  const { StrandlineGaveUpError, StrandlineGoneError, StrandlineHttpError } = strandline;
  const { StrandlineProtocolError, StrandlineResyncError, StrandlineError } = strandline;
  test.each([
    [new StrandlineResyncError(), "resync"],
    [new StrandlineGaveUpError(new TypeError("Failed to fetch")), "gave-up"],
    [new StrandlineGoneError(), "gone"],
    [new StrandlineHttpError(503), "http"],
    [new StrandlineHttpError(409, "message-exists"), "http"],
    [new StrandlineProtocolError("A frame has no type."), "protocol"],
  ])("%s is never taken for a lost connection by a chat", (error, code) => {
    expect(error).toBeInstanceOf(StrandlineError);
    expect(error).not.toBeInstanceOf(TypeError);
    expect(error.code).toBe(code);
    expect(error.name).toMatch(/^Strandline\w+Error$/);
    expect(error.message).not.toMatch(/fetch|network|load failed/i);
  });
});
