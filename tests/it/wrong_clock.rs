//! Two gateways on one database, one five minutes ahead and one five minutes behind. Nothing of
//! what they do, and of what they say of it, is other than with right clocks.
//!
//! What would be wrong by minutes is told from what is late by seconds: no time is measured here.

use hapax::app::{self, Listeners, Parts, Running};
use hapax::clock::Clock;
use hapax::config::{self, Sources};
use hapax::simulator::bot::{Bot, Call};
use hapax::simulator::meta::{Meta, Plan};
use hapax::simulator::script::{Answer, Behaviour};

use crate::scene::{bot, calls_of, person, say, text, took, until};
use crate::talk::{LOOK, stored};
use crate::witness::{Seen, What, Witness};
use crate::world::{APP_SECRET, Figures, LIMIT, World};

const WRONG_BY: i64 = 5 * 60 * 1000;
/// Far from the error of the clocks, and from how late anything is on a slow machine.
const MARGIN: i64 = 150 * 1000;
/// As it is set, in milliseconds.
const BACKOFF: i64 = 300;

const EXPIRED_TOKEN: i64 = 190;

/// Nobody loses this lease because the machine is slow; and it is shorter than the error.
const SETTINGS: [(&str, &str); 5] = [
    ("HAPAX_NODE_LEASE_TTL", "60s"),
    ("HAPAX_NODE_RENEW_EVERY", "200ms"),
    ("HAPAX_TURN_BACKOFF_FIRST", "300ms"),
    ("HAPAX_TURN_BACKOFF_MAX", "300ms"),
    ("HAPAX_SEND_PAUSE", "10m"),
];

/// A gateway in this process, by its own clock.
struct Skewed {
    running: Running,
    meta: Meta,
}

impl Skewed {
    async fn start(world: &World, handler: &[(&str, &str)], wrong_by: i64) -> Self {
        let sources = Sources {
            env: world.settings(&[&SETTINGS, handler].concat()),
            ..Sources::default()
        };
        let config = config::load(sources)
            .expect("the settings are right")
            .config;
        let listeners = Listeners::bind(&config).await.expect("free ports");
        let parts = Parts {
            listeners,
            clock: Clock::wrong_by(wrong_by),
            handler: None,
        };
        let running = app::start(&config, parts).await.expect("it starts");
        let meta = world.meta_at(&running.webhook_url());
        Self { running, meta }
    }

    async fn figures(&self) -> Figures {
        Figures::of(self.running.admin).await
    }
}

/// The gateway that is ahead and the one that is behind, and what they share.
struct Scene {
    bot: Bot,
    both: [Skewed; 2],
    /// The time at the beginning, by the database.
    began: i64,
    // Dropped last, and the schema with it.
    world: World,
}

impl Scene {
    /// With two gateways that ask a bot, which says nothing, or forward to it.
    async fn begin(handler: &str) -> Self {
        let world = World::on_postgres();
        let bot = bot(&world);
        bot.when(|text| text.starts_with("reply"), echoing());
        let silence = if handler == "ask" { 204 } else { 200 };
        bot.always(Answer::Status(silence));
        let url = bot.url();
        let handler = [
            ("HAPAX_HANDLER", handler),
            ("HAPAX_BOT_URL", url.as_str()),
            ("HAPAX_ASK_SECRET", APP_SECRET),
        ];
        let both = [
            Skewed::start(&world, &handler, WRONG_BY).await,
            Skewed::start(&world, &handler, -WRONG_BY).await,
        ];
        let began = stored(&world, NOW);
        Self {
            bot,
            both,
            began,
            world,
        }
    }

    /// Waits until a number out of the ledger is as wanted.
    async fn until_stored(&self, why: &str, sql: &str, wanted: impl Fn(i64) -> bool) {
        let reached = async {
            while !wanted(stored(&self.world, sql)) {
                self.world.clock.sleep(LOOK).await;
            }
        };
        let reached = self.world.clock.timeout(LIMIT, reached).await;
        reached.unwrap_or_else(|_| panic!("{why}"));
    }

    /// The figures of both, once they are as wanted.
    async fn until_figures(&self, why: &str, wanted: impl Fn(&Figures) -> bool) {
        let reached = async {
            for one in &self.both {
                while !wanted(&one.figures().await) {
                    self.world.clock.sleep(LOOK).await;
                }
            }
        };
        let reached = self.world.clock.timeout(LIMIT, reached).await;
        reached.unwrap_or_else(|_| panic!("{why}"));
    }

    async fn settle(&self) {
        self.until_figures("nothing is open", Figures::is_settled)
            .await;
    }

    /// Nobody was ever declared dead, no time in the ledger is one of a wrong clock, and nothing
    /// has failed.
    async fn end(self) {
        self.settle().await;
        assert_eq!(stored(&self.world, "SELECT max(id) FROM node"), 2);
        assert_eq!(stored(&self.world, "SELECT count(*) FROM node"), 2);
        for (table, column) in times(&self.world) {
            let (first, last) = (self.began - MARGIN, stored(&self.world, NOW) + MARGIN);
            let wrong = format!(
                "SELECT count(*) FROM {table} WHERE {column} <> 0
                    AND {column} NOT BETWEEN {first} AND {last}"
            );
            assert_eq!(stored(&self.world, &wrong), 0, "{table}.{column}");
        }
        for one in &self.both {
            let figures = one.figures().await;
            assert_eq!(figures.dead_letters(), 0);
            assert_eq!(figures.sum("hapax_fenced_total", ""), 0);
        }
        for one in self.both {
            one.running.drain().await;
        }
    }
}

const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000)::int8";

/// Every column that holds a time of day.
fn times(world: &World) -> Vec<(String, String)> {
    let schema = world.schema().expect("on PostgreSQL");
    let of = format!(
        "FROM information_schema.columns WHERE table_schema = '{}' AND data_type = 'bigint'
          AND (column_name ~ '(^|_)(at|until)$' OR column_name = 'not_before')",
        schema.name()
    );
    let all = stored_texts(
        world,
        &format!("SELECT table_name || '.' || column_name {of}"),
    );
    assert!(all.len() > 20, "{all:?}");
    let split = |name: String| {
        let (table, column) = name.split_once('.').expect("both");
        (table.to_owned(), column.to_owned())
    };
    all.into_iter().map(split).collect()
}

fn stored_texts(world: &World, sql: &str) -> Vec<String> {
    let schema = world.schema().expect("on PostgreSQL");
    crate::provided::apart(async {
        let client = crate::provided::connect(&schema.url()).await;
        let asked = client.expect("a connection").query(sql, &[]).await;
        let rows = asked.expect("an answer");
        rows.iter().map(|row| row.get(0)).collect()
    })
}

async fn execute(world: &World, sql: &str) {
    let schema = world.schema().expect("on PostgreSQL");
    let client = crate::provided::connect(&schema.url()).await;
    let done = client.expect("a connection").batch_execute(sql).await;
    done.expect("it is done");
}

fn echoing() -> Answer {
    Answer::json(|call| serde_json::json!({ "text": format!("attempt {}", call["attempt"]) }))
}

/// Both gateways have to wait after failures of the bot, and wait as long as they should: one
/// that counted by its own clock would be back five minutes too late, or at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_failing_bot_is_called_again_after_the_right_wait() {
    let scene = Scene::begin("forward").await;
    let witness = Witness::start(scene.world.schema().expect("on PostgreSQL")).await;
    let fails = |call: &Call| matches!(call.header("x-hapax-attempt"), "1" | "2");
    scene.bot.script().when(fails, Answer::Status(500));
    let retried = |figures: &Figures| figures.sum("hapax_turns_total", "outcome=\"retry\"") > 0;
    let mut who = 0;
    let writing = async {
        // Until both have had their share, whoever takes it.
        loop {
            for one in &scene.both {
                say(&scene.world, &one.meta, &person(who), &format!("p{who}")).await;
                who += 1;
            }
            let [ahead, behind] = &scene.both;
            if retried(&ahead.figures().await) && retried(&behind.figures().await) {
                return;
            }
        }
    };
    let written = scene.world.clock.timeout(LIMIT, writing).await;
    written.expect("both of them meet the failing bot");
    for who in 0..who {
        let said = format!("p{who}");
        until(&scene.bot, "it is handled", |calls| took(calls, &said)).await;
        assert_eq!(calls_of(&scene.bot, &said).len(), 3, "{said}");
    }
    waits_are_right(&witness.seen().await, 2 * who);
    scene.end().await;
}

/// Each turn was put off by the back-off, and claimed when that was over.
fn waits_are_right(seen: &[Seen], expected: usize) {
    let mut waits = 0;
    for (place, one) in seen.iter().enumerate() {
        if one.what == What::PutOff {
            // It lengthens itself by up to a quarter; and the database writes it down a moment
            // after it was reckoned.
            let wait = one.until - one.at;
            assert!((-MARGIN..=BACKOFF * 5 / 4).contains(&wait), "{wait} ms");
            let next =
                |next: &&Seen| next.what == What::Claimed && next.conversation == one.conversation;
            let claimed = seen[place..].iter().find(next).expect("it was claimed");
            assert!(claimed.at >= one.until, "{claimed:?} before {one:?}");
            waits += 1;
        }
    }
    assert_eq!(waits, expected);
}

/// Two processes more, as rows: one whose lease is over, one whose lease holds for four minutes,
/// which is over by the clock that is ahead.
#[tokio::test(flavor = "multi_thread")]
async fn leases_end_by_the_clock_of_the_database() {
    let scene = Scene::begin("forward").await;
    let join = |id: i64, until: i64| {
        format!(
            "INSERT INTO node (id, lease_until, pid, joined_at)
             VALUES ({id}, {NOW} + {until}, 1, {NOW});"
        )
    };
    execute(&scene.world, &join(1001, 240_000)).await;
    // Only then the other one: each has looked at both by the time that it is gone.
    for lapsed in [1002, 1003] {
        execute(&scene.world, &join(lapsed, -1_000)).await;
        let there = format!("SELECT count(*) FROM node WHERE id = {lapsed}");
        let gone = |count| count == 0;
        scene.until_stored("its lease is over", &there, gone).await;
    }
    // And each of the two has looked again since.
    for id in [1, 2] {
        let renewed = format!("SELECT lease_until FROM node WHERE id = {id}");
        for _ in 0..2 {
            let before = stored(&scene.world, &renewed);
            let later = |now| now > before;
            scene.until_stored("it renews", &renewed, later).await;
        }
    }
    let holds = "SELECT count(*) FROM node WHERE id = 1001";
    assert_eq!(stored(&scene.world, holds), 1, "its lease holds");
    execute(&scene.world, "DELETE FROM node WHERE id = 1001").await;
    scene.end().await;
}

/// Each gateway alone finds the number refused, and each time it is paused for ten minutes, not
/// for five or fifteen.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_is_paused_for_the_right_time() {
    let scene = Scene::begin("ask").await;
    let (world, pause) = (&scene.world, 600_000);
    let left = format!("SELECT coalesce(max(paused_until), 0) - {NOW} FROM number");
    for (index, one) in scene.both.iter().enumerate() {
        world.graph.next(Behaviour::Reject {
            http: 401,
            code: EXPIRED_TOKEN,
        });
        say(world, &one.meta, &person(index), &format!("reply {index}")).await;
        scene
            .until_stored("it is paused", &left, |left| left > 0)
            .await;
        let left = stored(world, &left);
        assert!((pause - MARGIN..=pause).contains(&left), "for {left} ms");
        let paused = |figures: &Figures| figures.sum("hapax_numbers_paused", "") == 1;
        scene.until_figures("both know it", paused).await;
        execute(world, "UPDATE number SET paused_until = 0").await;
        scene.settle().await;
    }
    assert_eq!(world.graph.accepted().len(), 2);
    assert_eq!(world.graph.sent().len(), 4, "each refused once");
    let shares = async |one: &Skewed| {
        let figures = one.figures().await;
        figures.sum("hapax_sends_total", "result=\"paused\"")
    };
    let shares = [shares(&scene.both[0]).await, shares(&scene.both[1]).await];
    assert_eq!(shares.iter().sum::<u64>(), 2, "{shares:?}");
    scene.end().await;
}

/// A copy that comes to the other gateway a moment later: five minutes ahead or behind it would
/// seem to come from the past, or ten minutes late.
#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_at_the_other_gateway_came_a_moment_later() {
    let scene = Scene::begin("forward").await;
    let ways = [[0, 1], [1, 0]];
    for (way, [from, to]) in ways.into_iter().enumerate() {
        let (from, to) = (&scene.both[from], &scene.both[to]);
        let twin = async || {
            let figures = to.figures().await;
            figures.sum("hapax_duplicates_total", "cause=\"twin\"")
        };
        let coming = async {
            for count in 0.. {
                let said = format!("{way} {count}");
                let body = text(&scene.world, &person(way), &said);
                for meta in [&from.meta, &to.meta] {
                    let delivered = meta.deliver(body.clone(), &Plan::once()).await;
                    assert_eq!(delivered.undelivered, 0);
                }
                // On a machine that hangs for two seconds it is none; then once more.
                if twin().await > 0 {
                    return;
                }
            }
        };
        let came = scene.world.clock.timeout(LIMIT, coming).await;
        came.expect("it is told as a twin");
        let figures = to.figures().await;
        let late = figures.sum("hapax_duplicates_total", "cause=\"late_replay\"");
        assert_eq!(late, 0, "nothing is ten minutes late");
    }
    let gaps =
        format!("SELECT count(*) FROM event WHERE last_at - first_at NOT BETWEEN 0 AND {MARGIN}");
    assert_eq!(stored(&scene.world, &gaps), 0, "no gap is of the clocks");
    scene.end().await;
}

/// The figure that operators watch grows from nothing, whichever gateway took the message and
/// whichever is asked.
#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_unanswered_message_is_as_old_as_it_is() {
    let scene = Scene::begin("forward").await;
    for (index, one) in scene.both.iter().enumerate() {
        scene.bot.hold();
        say(&scene.world, &one.meta, &person(index), "hello").await;
        let age = |figures: &Figures| figures.sum("hapax_oldest_unanswered_seconds", "");
        let seen = std::sync::Mutex::new(Vec::new());
        let grows = |figures: &Figures| {
            seen.lock().expect("whole").push(age(figures));
            age(figures) >= 1
        };
        scene.until_figures("it grows", grows).await;
        let seen = seen.into_inner().expect("whole");
        let max = MARGIN as u64 / 1000;
        assert!(seen.iter().all(|age| *age < max), "{seen:?} s");
        scene.bot.release();
        scene.settle().await;
    }
    scene.end().await;
}
