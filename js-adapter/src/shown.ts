/** What is given out of the entries of a view: the same objects as the time before, as far as nothing in them has changed. */
import type { Branches } from "./branch.js";
import type { Authors, Content, SpawnedMessage } from "./content.js";
import type { Entry } from "./path.js";

/** A message that was spawned beside the path. */
export interface Beside {
  entry: Entry;
  about: Omit<SpawnedMessage, "message">;
}

type Shown = Pick<Content, "messages" | "spawned" | "branches" | "authors">;

export function createShown(): (path: readonly Entry[], beside: readonly Beside[]) => Shown {
  let last: Shown = { messages: [], spawned: [], branches: {}, authors: {} };
  return (path, beside) => {
    const there = path.filter(({ isDeleted }) => !isDeleted);
    const named = (name: "branch" | "author") =>
      Object.fromEntries(
        [...there, ...beside.map(({ entry }) => entry)]
          .filter((entry) => entry[name])
          .map((entry) => [entry.message.id, entry[name]]),
      );
    const spawned = beside.map(
      ({ entry: { message }, about }) =>
        last.spawned.find((one) => one.message === message && one.run === about.run) ?? { ...about, message },
    );
    last = {
      messages: same(
        last.messages,
        there.map(({ message }) => message),
      ),
      spawned: same(last.spawned, spawned),
      branches: same(last.branches, named("branch") as Branches),
      authors: same(last.authors, named("author") as Authors),
    };
    return last;
  };
}

/** What was there before, where that holds the same. */
function same<T extends object>(before: T, now: T): T {
  const names = Object.keys(now) as (keyof T)[];
  const isSame =
    names.length === Object.keys(before).length && names.every((name) => before[name] === now[name]);
  return isSame ? before : now;
}
