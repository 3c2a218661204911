"""A WhatsApp bot on FastAPI that follows Meta's advice to answer fast: it says 200 at once, and
works in a background task.
"""

import hashlib
import hmac
import os

import httpx
from fastapi import BackgroundTasks, FastAPI, HTTPException, Request
from fastapi.responses import PlainTextResponse

ACCESS_TOKEN = os.environ["WHATSAPP_ACCESS_TOKEN"]
APP_SECRET = os.environ["WHATSAPP_APP_SECRET"]
VERIFY_TOKEN = os.environ["WHATSAPP_VERIFY_TOKEN"]
OPENAI_API_KEY = os.environ["OPENAI_API_KEY"]
OPENAI_BASE_URL = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
GRAPH_URL = "https://graph.facebook.com/v23.0"

app = FastAPI()
http = httpx.AsyncClient(timeout=30)
# Of this process; each worker has its own.
seen = set()


@app.get("/webhook")
async def verify(request: Request):
    if request.query_params.get("hub.verify_token") != VERIFY_TOKEN:
        raise HTTPException(403)
    return PlainTextResponse(request.query_params.get("hub.challenge", ""))


@app.post("/webhook")
async def receive(request: Request, background: BackgroundTasks):
    body = await request.body()
    signature = "sha256=" + hmac.new(APP_SECRET.encode(), body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(signature, request.headers.get("X-Hub-Signature-256", "")):
        raise HTTPException(401)
    for entry in (await request.json()).get("entry", []):
        for change in entry.get("changes", []):
            value = change["value"]
            # Statuses (sent, delivered, read) come to the same webhook, without messages.
            for message in value.get("messages", []):
                if message.get("type") == "text" and message["id"] not in seen:
                    seen.add(message["id"])
                    background.add_task(handle, value["metadata"]["phone_number_id"], message)
    return {"status": "ok"}


async def handle(number, message):
    answer = await http.post(
        f"{OPENAI_BASE_URL}/chat/completions",
        headers={"Authorization": f"Bearer {OPENAI_API_KEY}"},
        json={
            "model": "gpt-5-mini",
            "messages": [{"role": "user", "content": message["text"]["body"]}],
        },
    )
    answer.raise_for_status()
    text = answer.json()["choices"][0]["message"]["content"]
    sent = await http.post(
        f"{GRAPH_URL}/{number}/messages",
        headers={"Authorization": f"Bearer {ACCESS_TOKEN}"},
        json={
            "messaging_product": "whatsapp",
            "to": message["from"],
            "type": "text",
            "text": {"body": text},
        },
    )
    sent.raise_for_status()
