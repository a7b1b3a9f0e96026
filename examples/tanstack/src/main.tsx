import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Live, Stock } from "./connections.js";
import "./style.css";

// The thread is in the address, so that a second device can open the same one. ?stock=1 shows the stock connection.
const address = new URL(location.href);
const threadId = address.searchParams.get("thread") ?? crypto.randomUUID();
address.searchParams.set("thread", threadId);
history.replaceState(null, "", address);

const root = document.getElementById("root");
if (root === null) throw new Error("index.html has no #root");
const Connection = address.searchParams.has("stock") ? Stock : Live;
createRoot(root).render(
  <StrictMode>
    <Connection threadId={threadId} />
  </StrictMode>,
);
