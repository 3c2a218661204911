//! The pretend AI server, asked over HTTP.

use super::super::token;
use super::*;

const QUESTION: &str = "hello #bcdfg";

struct Client {
    http: reqwest::Client,
    ai: Ai,
}

impl Client {
    fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            ai: Ai::start(7, Clock::system()).unwrap(),
        }
    }

    async fn call(&self, method: http::Method, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}{path}", self.ai.base_url());
        let answer = self.http.request(method, url).json(body).send().await;
        let answer = answer.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(http::Method::POST, path, &body).await
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.call(http::Method::GET, path, &json!({})).await
    }

    async fn delete(&self, path: &str) -> (u16, Value) {
        self.call(http::Method::DELETE, path, &json!({})).await
    }

    async fn conversation(&self) -> String {
        let (status, made) = self.post("/conversations", json!({})).await;
        assert_eq!((status, &made["object"]), (200, &json!("conversation")));
        made["id"].as_str().unwrap().to_owned()
    }

    async fn ask(&self, conversation: &str, text: &str) -> (u16, Value) {
        let body = json!({ "model": "m", "input": text, "conversation": conversation });
        self.post("/responses", body).await
    }
}

fn said(response: &Value) -> &str {
    response["output"][0]["content"][0]["text"]
        .as_str()
        .unwrap()
}

fn tokens(threads: &[Thread]) -> Vec<Vec<String>> {
    threads.iter().map(|thread| thread.tokens.clone()).collect()
}

#[tokio::test]
async fn a_chat_is_answered_with_its_token_and_worded_anew_each_time() {
    let client = Client::start();
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": QUESTION }] });
    let (status, first) = client.post("/chat/completions", body.clone()).await;
    let (_, second) = client.post("/chat/completions", body).await;
    let text = |answer: &Value| {
        let text = &answer["choices"][0]["message"]["content"];
        text.as_str().unwrap().to_owned()
    };
    assert_eq!((status, &first["object"]), (200, &json!("chat.completion")));
    assert_eq!(token::find(&text(&first)), ["#bcdfg"]);
    assert_ne!(text(&first), text(&second));
    let threads = client.ai.threads();
    assert_eq!(threads.answers, 2);
    assert!(threads.conversations.is_empty() && threads.chains.is_empty());
}

#[tokio::test]
async fn a_stream_says_the_same_in_pieces() {
    let client = Client::start();
    let ask = async |path: &str, body: Value| {
        let url = format!("{}{path}", client.ai.base_url());
        let answer = client.http.post(url).json(&body).send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        answer.text().await.unwrap()
    };
    let lines = |text: &str| -> Vec<Value> {
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let data = data.filter(|data| *data != "[DONE]");
        data.map(|data| serde_json::from_str(data).unwrap())
            .collect()
    };
    let messages = json!([{ "role": "user", "content": QUESTION }]);
    let body = json!({ "messages": messages, "stream": true });
    let chat = ask("/chat/completions", body).await;
    assert!(chat.ends_with("data: [DONE]\n\n"));
    let pieces = lines(&chat);
    let pieces = pieces.iter().filter_map(|piece| {
        let content = &piece["choices"][0]["delta"]["content"];
        content.as_str().map(str::to_owned)
    });
    assert_eq!(token::find(&pieces.collect::<String>()), ["#bcdfg"]);

    let response = ask("/responses", json!({ "input": QUESTION, "stream": true })).await;
    let events = lines(&response);
    let whole = &events.last().unwrap()["response"];
    assert_eq!(whole["status"], "completed");
    let pieces = events.iter().filter_map(|event| event["delta"].as_str());
    assert_eq!(pieces.collect::<String>(), said(whole));
}

#[tokio::test]
async fn a_conversation_is_made_read_changed_and_deleted() {
    let client = Client::start();
    let id = client.conversation().await;
    let path = format!("/conversations/{id}");
    let set = json!({ "metadata": { "who": "ann" } });
    assert_eq!(client.post(&path, set).await.1["metadata"]["who"], "ann");
    assert_eq!(client.get(&path).await.1["metadata"]["who"], "ann");

    let items = format!("{path}/items");
    let user = json!({ "role": "user", "content": "one #hjkmn" });
    let (_, added) = client.post(&items, json!({ "items": [user] })).await;
    let item = added["first_id"].as_str().unwrap().to_owned();
    let (_, response) = client.ask(&id, QUESTION).await;
    let (_, listed) = client.get(&format!("{items}?order=asc")).await;
    let roles: Vec<&str> = (0..3)
        .map(|at| listed["data"][at]["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["user", "user", "assistant"]);
    assert_eq!(listed["data"][2]["content"][0]["text"], said(&response));
    let (_, newest) = client.get(&format!("{items}?limit=1")).await;
    assert_eq!(newest["data"][0]["role"], "assistant");
    assert_eq!(newest["has_more"], true);

    let one = format!("{items}/{item}");
    assert_eq!(client.get(&one).await.1["content"][0]["text"], "one #hjkmn");
    assert_eq!(client.delete(&one).await.0, 200);
    assert_eq!(client.get(&one).await.0, 404);
    assert_eq!(client.delete(&path).await.1["deleted"], true);
    assert_eq!(client.get(&path).await.0, 404);
    assert_eq!(client.ask(&id, QUESTION).await.0, 404);
    let seen = tokens(&client.ai.threads().conversations);
    assert_eq!(
        seen,
        [["#hjkmn", "#bcdfg"]],
        "what was deleted has been there"
    );
}

#[tokio::test]
async fn two_answers_at_once_in_one_conversation_are_one_too_many() {
    let client = Client::start();
    let id = client.conversation().await;
    let other = client.conversation().await;
    let (one, two, third) = tokio::join!(
        client.ask(&id, QUESTION),
        client.ask(&id, "again #hjkmn"),
        client.ask(&other, "elsewhere #pqrst"),
    );
    assert_eq!(third.0, 200);
    let (taken, refused) = if one.0 == 200 { (one, two) } else { (two, one) };
    assert_eq!((taken.0, refused.0), (200, 400));
    assert_eq!(refused.1["error"]["code"], "conversation_locked");
    assert_eq!(refused.1["error"]["type"], "invalid_request_error");
    let threads = client.ai.threads();
    assert_eq!((threads.locked, threads.answers), (1, 2));
    assert_eq!(threads.conversations[0].tokens, token::find(said(&taken.1)));
    assert_eq!(
        client.ask(&id, "later #wxzbc").await.0,
        200,
        "it is free again"
    );
}

#[tokio::test]
async fn who_hangs_up_leaves_the_conversation_free_and_nothing_in_it() {
    let client = Client::start();
    let id = client.conversation().await;
    let into = Into::Conversation(id.clone());
    let held = Held::begin(&client.ai.0.service, into.clone()).unwrap();
    assert_eq!(client.ask(&id, QUESTION).await.0, 400);
    drop(held);
    assert!(client.ai.threads().conversations[0].tokens.is_empty());
    assert_eq!(client.ask(&id, QUESTION).await.0, 200);
}

#[tokio::test]
async fn messages_of_one_question_in_two_conversations_are_told() {
    let client = Client::start();
    for _ in 0..2 {
        let id = client.conversation().await;
        client.ask(&id, QUESTION).await;
    }
    client.conversation().await;
    let seen = tokens(&client.ai.threads().conversations);
    assert_eq!(seen, [vec!["#bcdfg"], vec!["#bcdfg"], vec![]]);
}

#[tokio::test]
async fn a_chain_is_a_thread_once_somebody_goes_on_from_a_response() {
    let client = Client::start();
    let ask = async |body: Value| client.post("/responses", body).await;
    let (_, first) = ask(json!({ "input": QUESTION })).await;
    ask(json!({ "input": "alone #hjkmn" })).await;
    let (_, unkept) = ask(json!({ "input": "x", "store": false })).await;
    assert!(
        client.ai.threads().chains.is_empty(),
        "nobody goes on from any"
    );

    let next = [json!({ "role": "user", "content": "more #pqrst" })];
    let (_, second) = ask(json!({ "input": next, "previous_response_id": first["id"] })).await;
    assert_eq!(second["previous_response_id"], first["id"]);
    let seen = tokens(&client.ai.threads().chains);
    assert_eq!(seen, [vec!["#bcdfg", "#pqrst"], vec!["#hjkmn"]]);

    let (status, _) = ask(json!({ "input": "x", "previous_response_id": unkept["id"] })).await;
    assert_eq!(status, 404, "it was not stored");
    let both = json!({ "input": "x", "previous_response_id": first["id"], "conversation": "c" });
    assert_eq!(ask(both).await.0, 400);
    let path = format!("/responses/{}", second["id"].as_str().unwrap());
    assert_eq!(client.get(&path).await.1, second);
}

#[tokio::test]
async fn what_nobody_can_read_is_refused_and_models_are_listed() {
    let client = Client::start();
    assert_eq!(client.get("/models").await.1["object"], "list");
    assert_eq!(client.get("/models/any").await.1["id"], "any");
    assert_eq!(client.get("/assistants").await.0, 404, "they are gone");
    for (path, body) in [
        ("/chat/completions", json!({})),
        ("/responses", json!({ "model": "m" })),
        ("/responses", json!([])),
    ] {
        let (status, answer) = client.post(path, body).await;
        assert_eq!(status, 400, "{path}");
        assert_eq!(answer["error"]["type"], "invalid_request_error");
    }
}
