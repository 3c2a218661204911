//! Several URLs of one bot: each person always meets the same one, as long as it is up.

use std::collections::{BTreeMap, BTreeSet};

use hapax::simulator::bot::Bot;

use crate::engines::on_each_engine;
use crate::scene::{bot, person, say, until};
use crate::world::{Node, World};

on_each_engine!(each_person_meets_the_same_bot_and_comes_back_to_it_after_an_outage);

const PEOPLE: usize = 24;

/// The people (as in their texts) that a bot met in a round.
fn met(bot: &Bot, round: usize) -> BTreeSet<usize> {
    let calls = bot.calls();
    let texts = calls.iter().filter(|call| call.status == Some(200));
    texts
        .filter_map(|call| {
            let text = call.text();
            let (at, who) = text.split_once(' ')?;
            (at == format!("r{round}")).then(|| who.parse().ok())?
        })
        .collect()
}

/// Everybody writes one message, to one process or the other.
async fn everybody_writes(world: &World, nodes: &[Node; 2], bots: &[Bot; 2], round: usize) {
    let metas = [world.meta(&nodes[0]), world.meta(&nodes[1])];
    for who in 0..PEOPLE {
        let text = format!("r{round} {who}");
        let meta = &metas[(who + round) % 2];
        say(world, meta, &person(who), &text).await;
    }
    for node in nodes {
        world.settle(node).await;
    }
    let everybody: BTreeSet<usize> = (0..PEOPLE).collect();
    let [one, two] = [met(&bots[0], round), met(&bots[1], round)];
    assert!(one.is_disjoint(&two), "nobody meets both");
    assert_eq!(&one | &two, everybody, "everybody is handled");
}

async fn each_person_meets_the_same_bot_and_comes_back_to_it_after_an_outage(world: World) {
    let bots = [bot(&world), bot(&world)];
    let forth = format!("{},{}", bots[0].url(), bots[1].url());
    let back = format!("{},{}", bots[1].url(), bots[0].url());
    let settings = |urls| {
        [
            ("HAPAX_HANDLER", "forward"),
            ("HAPAX_BOT_URL", urls),
            ("HAPAX_FORWARD_DOWN_FOR", "300ms"),
        ]
    };
    // Two processes that name the bots in another order agree all the same.
    let nodes = [
        world.node(&settings(forth.as_str())).await,
        world.node(&settings(back.as_str())).await,
    ];
    everybody_writes(&world, &nodes, &bots, 0).await;
    let home = [met(&bots[0], 0), met(&bots[1], 0)];
    assert!(home.iter().all(|people| people.len() > 1), "{home:?}");
    for round in 1..4 {
        everybody_writes(&world, &nodes, &bots, round).await;
        assert_eq!(met(&bots[0], round), home[0], "round {round}");
    }

    bots[0].stop().await;
    everybody_writes(&world, &nodes, &bots, 4).await;
    assert_eq!(met(&bots[0], 4).len(), 0);

    bots[0].restart().await.expect("it comes back");
    let mut round = 5;
    let coming_back = async {
        loop {
            everybody_writes(&world, &nodes, &bots, round).await;
            if met(&bots[0], round) == home[0] {
                return;
            }
            round += 1;
        }
    };
    let came_back = world.clock.timeout(crate::world::LIMIT, coming_back).await;
    came_back.expect("its people come back to it");
    everybody_writes(&world, &nodes, &bots, round + 1).await;
    assert_eq!(met(&bots[0], round + 1), home[0], "and stay");
    in_order(&bots, round + 1);
    for node in &nodes {
        assert_eq!(node.figures().await.dead_letters(), 0);
    }
    until(&bots[0], "nothing runs any more", |calls| {
        calls.iter().all(|call| call.ended.is_some())
    })
    .await;
}

/// Whoever met whom: each person was heard once a round, and the rounds came in order.
fn in_order(bots: &[Bot; 2], last: usize) {
    for bot in bots {
        let mut rounds: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for call in bot.calls() {
            let text = call.text();
            let (round, who) = text.split_once(' ').expect("a round and a person");
            let round = round[1..].parse().expect("a number");
            rounds.entry(who.to_owned()).or_default().push(round);
        }
        for (who, rounds) in rounds {
            assert!(rounds.is_sorted_by(|a, b| a < b), "{who}: {rounds:?}");
            assert!(rounds.len() <= last + 1);
        }
    }
}
