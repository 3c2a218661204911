"""A WhatsApp bot on Flask, as tutorials write it: the webhook checks the signature, looks whether
it knows the message, asks an AI in the person's own conversation, sends the answer, and says 200.
"""

import hashlib
import hmac
import os
import sqlite3
from contextlib import closing

import requests
from flask import Flask, abort, request

ACCESS_TOKEN = os.environ["WHATSAPP_ACCESS_TOKEN"]
APP_SECRET = os.environ["WHATSAPP_APP_SECRET"]
VERIFY_TOKEN = os.environ["WHATSAPP_VERIFY_TOKEN"]
OPENAI_API_KEY = os.environ["OPENAI_API_KEY"]
OPENAI_BASE_URL = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
GRAPH_URL = "https://graph.facebook.com/v23.0"
DATABASE = os.path.join(os.environ.get("STATE_DIR", "."), "bot.db")
TIMEOUT = 30

app = Flask(__name__)


def database():
    connection = sqlite3.connect(DATABASE, timeout=30)
    connection.execute("CREATE TABLE IF NOT EXISTS seen (message TEXT)")
    connection.execute("CREATE TABLE IF NOT EXISTS threads (person TEXT, conversation TEXT)")
    return closing(connection)


@app.get("/webhook")
def verify():
    if request.args.get("hub.verify_token") != VERIFY_TOKEN:
        abort(403)
    return request.args.get("hub.challenge", "")


@app.post("/webhook")
def receive():
    signature = "sha256=" + hmac.new(
        APP_SECRET.encode(), request.get_data(), hashlib.sha256
    ).hexdigest()
    if not hmac.compare_digest(signature, request.headers.get("X-Hub-Signature-256", "")):
        abort(401)
    for entry in request.get_json().get("entry", []):
        for change in entry.get("changes", []):
            value = change["value"]
            # Statuses (sent, delivered, read) come to the same webhook, without messages.
            for message in value.get("messages", []):
                handle(value["metadata"]["phone_number_id"], message)
    return "ok"


def handle(number, message):
    if message.get("type") != "text" or is_known(message["id"]):
        return
    graph(number, {"status": "read", "message_id": message["id"]})
    note(message["id"])
    person = message["from"]
    answer = ask(thread_of(person), message["text"]["body"])
    graph(number, {"to": person, "type": "text", "text": {"body": answer}})


def is_known(message):
    with database() as db:
        return db.execute("SELECT 1 FROM seen WHERE message = ?", (message,)).fetchone()


def note(message):
    with database() as db:
        db.execute("INSERT INTO seen VALUES (?)", (message,))
        db.commit()


def thread_of(person):
    with database() as db:
        query = "SELECT conversation FROM threads WHERE person = ?"
        row = db.execute(query, (person,)).fetchone()
    if row:
        return row[0]
    conversation = openai("/conversations", {"metadata": {"person": person}})["id"]
    with database() as db:
        db.execute("INSERT INTO threads VALUES (?, ?)", (person, conversation))
        db.commit()
    return conversation


def ask(conversation, text):
    body = {"model": "gpt-5-mini", "conversation": conversation, "input": text}
    response = openai("/responses", body)
    return response["output"][-1]["content"][0]["text"]


def openai(path, body):
    answer = requests.post(
        OPENAI_BASE_URL + path,
        headers={"Authorization": f"Bearer {OPENAI_API_KEY}"},
        json=body,
        timeout=TIMEOUT,
    )
    answer.raise_for_status()
    return answer.json()


def graph(number, body):
    answer = requests.post(
        f"{GRAPH_URL}/{number}/messages",
        headers={"Authorization": f"Bearer {ACCESS_TOKEN}"},
        json={"messaging_product": "whatsapp", **body},
        timeout=TIMEOUT,
    )
    answer.raise_for_status()
