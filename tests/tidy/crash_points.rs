//! Every crash point is passed where it says, each commit in both engines and each call in its
//! stage; and every guard is asked where it holds.

use hapax::crash_point::{Method, Point};
use hapax::guard::{Engine, Guard};

use crate::project::sources;
use crate::source::Source;

/// Where the commits of each engine begin and are durable.
const COMMITS: [(&str, &str, &str); 2] = [
    (
        "src/store/sqlite/",
        "src/store/sqlite/writer.rs",
        "src/store/sqlite/sync.rs",
    ),
    (
        "src/store/postgres/",
        "src/store/postgres/tx.rs",
        "src/store/postgres/tx.rs",
    ),
];

/// The file that passes a point by its name; `None` for the commits, which each engine carries.
const fn passed_in(point: Point) -> Option<&'static str> {
    match point {
        Point::BeforeCommit(_) | Point::AfterCommit(_) => None,
        Point::BeforeAppend | Point::AfterAppend | Point::Before200 => Some("src/ingress/mod.rs"),
        Point::BeforeHandle | Point::AfterHandle => Some("src/worker/run.rs"),
        Point::BeforeGraph | Point::AfterGraph => Some("src/sender/mod.rs"),
    }
}

/// The files below a folder whose code holds a word, and how often, the list of points apart.
fn places(sources: &[Source], below: &str, word: &str) -> Vec<(String, usize)> {
    let times = |source: &Source| {
        let found = source.code.match_indices(word);
        found
            .filter(|(at, _)| {
                let next = source.code[at + word.len()..].chars().next();
                !next.is_some_and(|next| next.is_alphanumeric() || next == '_')
            })
            .count()
    };
    sources
        .iter()
        .filter(|source| source.path.starts_with(below) && source.path != "src/crash_point.rs")
        .map(|source| (source.path.clone(), times(source)))
        .filter(|(_, times)| *times > 0)
        .collect()
}

#[test]
fn every_method_that_writes_passes_its_points_in_both_engines() {
    let sources = sources(&["src"]);
    let once = |path: &str| vec![(path.to_owned(), 1)];
    for (engine, before, after) in COMMITS {
        for method in Method::ALL {
            let places = places(&sources, engine, &format!("Method::{method:?}"));
            let times: Vec<usize> = places.iter().map(|(_, times)| *times).collect();
            assert_eq!(times, [1], "{method:?} in {engine}: {places:?}");
        }
        assert_eq!(places(&sources, engine, ".before_commit()"), once(before));
        assert_eq!(places(&sources, engine, ".after_commit()"), once(after));
    }
}

#[test]
fn every_call_passes_its_points() {
    let sources = sources(&["src"]);
    for point in Point::ALL {
        if let Some(path) = passed_in(point) {
            let word = format!("crash_point::pass(Point::{point:?}");
            let once = vec![(path.to_owned(), 1)];
            assert_eq!(places(&sources, "src/", &word), once, "{point:?}");
        }
    }
}

#[test]
fn every_guard_is_asked_where_it_holds() {
    let sources = sources(&["src"]);
    for guard in Guard::ALL {
        let asked = places(&sources, "src/", &format!("guard::holds(Guard::{guard:?}"));
        let asked: Vec<&str> = asked.iter().map(|(path, _)| path.as_str()).collect();
        for (engine, other, folder) in [
            (Engine::Sqlite, "src/store/postgres/", "src/store/sqlite/"),
            (Engine::Postgres, "src/store/sqlite/", "src/store/postgres/"),
        ] {
            // Beside both, it is one guard for both.
            let is_asked = asked.iter().any(|path| !path.starts_with(other));
            let is_own = asked.iter().any(|path| path.starts_with(folder));
            let applies = guard.applies_to(engine);
            assert_eq!(applies, is_asked, "{guard:?} for {engine:?}: {asked:?}");
            assert!(applies || !is_own, "{guard:?} for {engine:?}: {asked:?}");
        }
    }
}
