// Calls Graph and another host by the HTTP clients that bots for Node.js use, unaware of Hapax.
//
// calls.mjs NUMBER OTHER: prints a line of JSON for each client.

import { request } from 'node:https';
import https from 'node:https';
import axios from 'axios';
import got from 'got';
import nodeFetch from 'node-fetch';

const [number, other] = process.argv.slice(2);
const threads = `https://graph.facebook.com/v1/threads/${number}`;
const json = { 'content-type': 'application/json' };
const text = (body) => body && JSON.stringify(body);

function read(sent, body) {
  return new Promise((resolve, reject) => {
    sent.on('error', reject).on('response', async (answer) => {
      let all = '';
      for await (const part of answer) all += part;
      resolve(JSON.parse(all));
    });
    sent.end(text(body));
  });
}

const clients = {
  fetch: async (method, url, body) =>
    (await fetch(url, { method, headers: json, body: text(body) })).json(),
  fetchWithRequest: async (method, url, body) =>
    (await fetch(new Request(new URL(url), { method, headers: json, body: text(body) }))).json(),
  named: (method, url, body) => read(request(url, { method, headers: json }), body),
  options: (method, url, body) => {
    const { hostname, port, pathname, search } = new URL(url);
    const options = { hostname, port, path: pathname + search, method, headers: json };
    return read(https.request({ ...options, agent: new https.Agent({ keepAlive: false }) }), body);
  },
  axios: async (method, url, data) => (await axios({ method, url, data })).data,
  got: (method, url, body) => got(url, { method, headers: json, body: text(body) }).json(),
  nodeFetch: async (method, url, body) =>
    (await nodeFetch(url, { method, headers: json, body: text(body) })).json(),
};

let count = 0;
for (const [thread, call] of Object.entries(clients)) {
  const phone = `1555200${count++}`;
  const right = await call('PUT', `${threads}/${phone}`);
  await call('POST', `${threads}/${phone}/complete`, { version: right.version, thread });
  console.log(JSON.stringify({ phone, thread, other: await call('GET', other) }));
}
