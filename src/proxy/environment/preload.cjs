'use strict';
// Written by hapax run, and loaded by Node.js through NODE_OPTIONS. Node's own fetch knows no proxy
// variables (before Node 24), and axios asks a proxy for https in a way that none understands.
// So requests for graph.facebook.com go to hapax in clear, on loopback; all others are left alone.

const HOST = 'graph.facebook.com';
const PROXY_NAMES = ['HTTPS_PROXY', 'https_proxy'];

function isMeant(host, port) {
  const name = String(host || '').toLowerCase().replace(/\.$/, '');
  return name === HOST && (!port || Number(port) === 443 || Number(port) === 80);
}

// The options of http.request or https.request, led to hapax; nothing if they are for another host.
function moved(given, base, urlToHttpOptions) {
  let options = {};
  let next = 0;
  if (typeof given[0] === 'string' || given[0] instanceof URL) {
    options = urlToHttpOptions(new URL(given[0]));
    next = 1;
  }
  if (given[next] && typeof given[next] === 'object') {
    options = Object.assign(options, given[next]);
    next += 1;
  }
  if (options.socketPath || !isMeant(options.hostname || options.host, options.port)) {
    return undefined;
  }
  const to = Object.assign({}, options, {
    protocol: 'http:',
    hostname: base.hostname.replace(/^\[|\]$/g, ''),
    port: base.port || 80,
    path: base.pathname.replace(/\/$/, '') + (options.path || '/'),
    // An agent for https, or one that goes through a proxy, can't take it there.
    agent: options.agent === false ? false : undefined,
  });
  for (const name of [
    'host', 'href', 'createConnection', '_defaultAgent', 'defaultPort', 'servername', 'lookup',
    'family', 'localAddress',
  ]) {
    delete to[name];
  }
  return { to, callback: given[next] };
}

function leadRequests(base) {
  const http = require('http');
  const https = require('https');
  const { urlToHttpOptions } = require('url');
  const plain = http.request;
  for (const module of [http, https]) {
    const request = module.request;
    module.request = function (...given) {
      let found;
      try {
        found = moved(given, base, urlToHttpOptions);
      } catch {
        // Not an address: told by the function itself, in its own words.
      }
      return found ? plain.call(http, found.to, found.callback) : request.apply(this, given);
    };
    module.get = function (...given) {
      const sent = module.request(...given);
      sent.end();
      return sent;
    };
  }
  require('module').syncBuiltinESMExports();
}

function leadFetch(base) {
  const fetch = globalThis.fetch;
  if (typeof fetch !== 'function') return;
  globalThis.fetch = function (input, init) {
    let url;
    try {
      url = new URL(input instanceof Request ? input.url : input);
    } catch {
      return fetch.call(this, input, init);
    }
    if (!/^https?:$/.test(url.protocol) || !isMeant(url.hostname, url.port)) {
      return fetch.call(this, input, init);
    }
    const to = base.origin + base.pathname.replace(/\/$/, '') + url.pathname + url.search;
    const how = init && Object.assign({}, init);
    // One that goes through a proxy can't take it there.
    if (how) delete how.dispatcher;
    return fetch.call(this, input instanceof Request ? new Request(to, input) : to, how);
  };
}

// Libraries of this process are not to use the proxy; programs that it starts are.
function keepProxyForChildren(proxy) {
  for (const name of PROXY_NAMES) {
    if (process.env[name] === proxy) delete process.env[name];
  }
  const { ChildProcess } = require('child_process');
  const spawn = ChildProcess.prototype.spawn;
  ChildProcess.prototype.spawn = function (options) {
    const pairs = options && options.envPairs;
    // Only those who inherit what this process was given.
    if (Array.isArray(pairs) && pairs.includes(`HAPAX_RUN_PROXY=${proxy}`)) {
      for (const name of PROXY_NAMES) {
        if (!pairs.some((pair) => pair.startsWith(`${name}=`))) pairs.push(`${name}=${proxy}`);
      }
    }
    return spawn.call(this, options);
  };
}

const { HAPAX_RUN_URL: url, HAPAX_RUN_PROXY: proxy } = process.env;
if (url && proxy) {
  const base = new URL(url);
  leadRequests(base);
  leadFetch(base);
  keepProxyForChildren(proxy);
}
