// A WhatsApp bot on Express, in two processes of Node's cluster module. It remembers in a Set which
// messages it has seen, asks an AI, sends the answer, and says 200.
'use strict';

const cluster = require('node:cluster');
const crypto = require('node:crypto');
const axios = require('axios');
const express = require('express');

const PORT = process.env.PORT || 3000;
const ACCESS_TOKEN = process.env.WHATSAPP_ACCESS_TOKEN;
const APP_SECRET = process.env.WHATSAPP_APP_SECRET;
const VERIFY_TOKEN = process.env.WHATSAPP_VERIFY_TOKEN;
const OPENAI_API_KEY = process.env.OPENAI_API_KEY;
const OPENAI_BASE_URL = process.env.OPENAI_BASE_URL || 'https://api.openai.com/v1';
const GRAPH_URL = 'https://graph.facebook.com/v23.0';
const WORKERS = 2;

// Of this process; each worker has its own.
const seen = new Set();

function isSigned(request) {
  const expected = 'sha256=' + crypto.createHmac('sha256', APP_SECRET).update(request.body).digest('hex');
  const signature = request.get('X-Hub-Signature-256') || '';
  return signature.length === expected.length
    && crypto.timingSafeEqual(Buffer.from(signature), Buffer.from(expected));
}

async function handle(number, message) {
  if (message.type !== 'text' || seen.has(message.id)) return;
  seen.add(message.id);
  const answer = await axios.post(`${OPENAI_BASE_URL}/chat/completions`, {
    model: 'gpt-5-mini',
    messages: [{ role: 'user', content: message.text.body }],
  }, { headers: { Authorization: `Bearer ${OPENAI_API_KEY}` } });
  await axios.post(`${GRAPH_URL}/${number}/messages`, {
    messaging_product: 'whatsapp',
    to: message.from,
    type: 'text',
    text: { body: answer.data.choices[0].message.content },
  }, { headers: { Authorization: `Bearer ${ACCESS_TOKEN}` } });
}

function serve() {
  const app = express();

  app.get('/webhook', (request, response) => {
    if (request.query['hub.verify_token'] !== VERIFY_TOKEN) return response.sendStatus(403);
    response.send(request.query['hub.challenge']);
  });

  app.post('/webhook', express.raw({ type: 'application/json', limit: '4mb' }), async (request, response) => {
    if (!isSigned(request)) return response.sendStatus(401);
    for (const entry of JSON.parse(request.body).entry || []) {
      for (const { value } of entry.changes || []) {
        // Statuses (sent, delivered, read) come to the same webhook, without messages.
        for (const message of value.messages || []) {
          await handle(value.metadata.phone_number_id, message);
        }
      }
    }
    response.sendStatus(200);
  });

  app.listen(PORT);
}

if (cluster.isPrimary) {
  for (let worker = 0; worker < WORKERS; worker += 1) cluster.fork();
  cluster.on('exit', () => cluster.fork());
} else {
  serve();
}
