"""Calls Graph and another host by the HTTP clients that bots in Python use, unaware of Hapax.

calls.py NUMBER OTHER: prints a line of JSON for each client.
"""

import asyncio
import json
import sys
import urllib.request

import aiohttp
import httpx
import requests

NUMBER, OTHER = sys.argv[1:]
THREADS = f"https://graph.facebook.com/v1/threads/{NUMBER}"


async def by_requests(method, url, body=None):
    return requests.request(method, url, json=body, timeout=60).json()


async def by_session(method, url, body=None):
    with requests.Session() as session:
        return session.request(method, url, json=body, timeout=60).json()


async def by_httpx(method, url, body=None):
    return httpx.request(method, url, json=body, timeout=60).json()


async def by_httpx_async(method, url, body=None):
    async with httpx.AsyncClient(timeout=60) as client:
        return (await client.request(method, url, json=body)).json()


async def by_urllib(method, url, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


async def by_aiohttp(method, url, body=None):
    async with aiohttp.ClientSession(trust_env=True) as session:
        async with session.request(method, url, json=body) as answer:
            return await answer.json()


async def main():
    clients = [by_requests, by_session, by_httpx, by_httpx_async, by_urllib, by_aiohttp]
    for index, call in enumerate(clients):
        phone = f"1555100{index}"
        thread = call.__name__
        right = await call("PUT", f"{THREADS}/{phone}")
        body = {"version": right["version"], "thread": thread}
        await call("POST", f"{THREADS}/{phone}/complete", body)
        other = await call("GET", OTHER)
        print(json.dumps({"phone": phone, "thread": thread, "other": other}), flush=True)


asyncio.run(main())
