/** The stream between the connections and the chat: order, bounds, ends. */
import { expect, test } from "vitest";
import { createOutlet } from "../../js-adapter/src/outlet.js";
import { read, settle } from "./support.js";

const oops = new Error("oops");
const none = () => {};

test("an error comes after everything that was pushed before it", async () => {
  const outlet = createOutlet<{ type: string }>(none);
  outlet.push([{ type: "a" }, { type: "b" }]);
  outlet.end(oops);
  outlet.push([{ type: "too late" }]);
  const { chunks, error } = await read(outlet.stream).end;
  expect([chunks.map(({ type }) => type), error]).toEqual([["a", "b"], oops]);
});

test("an error comes after the last chunk for a reader who took over from another, too", async () => {
  const outlet = createOutlet<string>(none);
  const first = outlet.stream.getReader();
  const abandoned = first.read();
  await settle(1);
  first.releaseLock();
  await expect(abandoned).rejects.toThrow();
  outlet.push(["a"]);
  outlet.end(oops);
  const second = outlet.stream.getReader();
  expect(await second.read()).toEqual({ done: false, value: "a" });
  await expect(second.read()).rejects.toBe(oops);
});

test("a failure comes at once, and what was not read is dropped", async () => {
  const outlet = createOutlet<string>(none);
  outlet.push(["a"]);
  outlet.fail(oops);
  await expect(outlet.stream.getReader().read()).rejects.toBe(oops);
  await outlet.ended;
});

test("an end without anything before it closes the stream", async () => {
  const outlet = createOutlet<string>(none);
  outlet.end();
  expect(await outlet.stream.getReader().read()).toEqual({ done: true, value: undefined });
  await outlet.ended;
});

test("it is full with 1024 chunks, and ready again when they have been read", async () => {
  const outlet = createOutlet<number>(none);
  outlet.push(Array.from({ length: 1_023 }, (_, i) => i));
  expect(outlet.ready()).toBeUndefined();
  outlet.push([1_023]);
  let isReady = false;
  void outlet.ready()?.then(() => {
    isReady = true;
  });
  const reader = outlet.stream.getReader();
  for (let i = 0; i < 1_023; i++) expect((await reader.read()).value).toBe(i);
  expect(isReady).toBe(false);
  expect((await reader.read()).value).toBe(1_023);
  await settle(1);
  expect(isReady).toBe(true);
});

test("leaving is reported once, and nobody is kept waiting for it", async () => {
  let left = 0;
  const outlet = createOutlet<number>(() => left++);
  outlet.push(Array.from({ length: 2_000 }, (_, i) => i));
  const ready = outlet.ready();
  await outlet.stream.cancel();
  await Promise.all([ready, outlet.ended]);
  outlet.fail(oops);
  expect(left).toBe(1);
});
