"""A report that survives ``kill -9``: DBOS keeps the work, Strandline keeps the conversation.

Run ``uvicorn main:app --port 8000`` in this folder, ask something, and kill the process while it answers.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dbos import DBOS, DBOSConfig, SetWorkflowID
from fastapi import FastAPI

from strandline import Run, Strandline, open_on_loopback

config: DBOSConfig = {
    "name": "reports",
    "system_database_url": os.environ.get("WORKFLOWS_DB", "sqlite:///workflows.sqlite"),
    "application_version": "1",  # workflows are carried on by processes of the same version only
    "run_migrations": True,
    "console_log_level": "ERROR",
}
DBOS(config=config)

SECTIONS = ["Question", "Evidence", "Objections", "Conclusion"]
SECONDS = float(os.environ.get("STEP_SECONDS", "2"))


@DBOS.step()
async def write(section: str, question: str) -> str:
    """Where the slow and expensive call of a model would be. A step that has come to its end is never run again."""
    print(f"step {section} of {question!r}", flush=True)
    await asyncio.sleep(SECONDS)
    return f"{section}: what there is to say about “{question}”.\n\n"


@DBOS.workflow()
async def report(question: str) -> None:
    for section in SECTIONS:
        text = await write(section, question)
        await DBOS.write_stream_async("sections", {"name": section, "text": text})
    await DBOS.close_stream_async("sections")


chat = Strandline(os.environ.get("CHAT_DB", "chat.db"), auth=open_on_loopback())


@chat.agent(recover="continue")
async def researcher(run: Run) -> AsyncIterator[str]:
    question = str(run.prompt()[-1]["content"])
    with SetWorkflowID(run.id):
        # The first time this starts the workflow. After a crash there is one with this id, and DBOS goes on with it.
        await DBOS.start_workflow_async(report, question)
    async for section in DBOS.read_stream_async(run.id, "sections", polling_interval_sec=0.2):
        if section["name"] in run.checkpoints:
            continue  # it is in the message already
        await run.progress("report", {"label": section["name"], "of": len(SECTIONS)})
        yield section["text"]
        await run.checkpoint(section["name"])


@asynccontextmanager
async def workflows(_: FastAPI) -> AsyncIterator[None]:
    DBOS.launch()
    try:
        yield
    finally:
        DBOS.destroy(workflow_completion_timeout_sec=0)


app = FastAPI(lifespan=workflows)
app.include_router(chat.router, prefix="/api")  # its lifespan, and with it recovery, comes after DBOS's
