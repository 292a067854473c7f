//! Seeds that once found something, and a few fresh ones, so that every `cargo test` simulates.

use quorate_sim::report::{Summary, failure};
use quorate_sim::run::{Plan, run};

/// Short runs in a row; `run --seeds` does thousands of long ones.
const FRESH: std::ops::Range<u64> = 100_000..100_040;
const FRESH_STEPS: u64 = 6_000;

fn judge(plans: impl IntoIterator<Item = Plan>) -> Summary {
    let mut summary = Summary::default();
    for plan in plans {
        let outcome = run(&plan);
        if outcome.violation.is_some() {
            panic!("{}", failure(&plan, &outcome));
        }
        summary.add(&outcome);
    }
    summary
}

/// Each line of `seeds.txt`: a seed, perhaps a number of steps, perhaps options; `#` begins a remark.
fn listed() -> Vec<Plan> {
    let plan = |line: &str| {
        let mut words = line.split('#').next().unwrap_or("").split_whitespace();
        let mut plan = Plan::of_seed(words.next()?.parse().expect("a seed"));
        for word in words {
            match word.parse() {
                Ok(steps) => plan.steps = steps,
                Err(_) => plan.options.set(word).expect("options"),
            }
        }
        Some(plan)
    };
    include_str!("../seeds.txt").lines().filter_map(plan).collect()
}

#[test]
fn seeds_that_found_something_stay_clean() {
    let plans = listed();
    assert!(!plans.is_empty());
    judge(plans);
}

#[test]
fn fresh_seeds_are_clean() {
    let plan = |seed| Plan { steps: FRESH_STEPS, ..Plan::of_seed(seed) };
    let summary = judge(FRESH.map(plan));
    assert!(summary.stats.elections > FRESH.end - FRESH.start, "hardly anything happens");
    assert!(summary.stats.executed > 1_000, "clients hardly get anything done");
    assert!(summary.stats.crashes > 100, "hardly anything goes wrong");
    let reached = summary.marks.reached();
    assert!(reached > 80, "only {reached} rare states were reached");
}

/// Without faults nothing is refused for long, and nobody but the first leader is needed.
#[test]
fn quiet_clusters_are_quiet() {
    for voters in 1..=7 {
        let mut plan = Plan { steps: 4_000, ..Plan::of_seed(voters) };
        plan.options = format!("voters={voters},think_us=20000").parse().unwrap();
        let outcome = run(&plan);
        assert_eq!(outcome.violation, None, "{voters} voters");
        assert!(outcome.stats.executed + outcome.stats.read > 100, "{voters} voters");
        // The leader may be among the minority that the last phase takes away.
        assert!(outcome.stats.elections <= 3, "{voters} voters: {}", outcome.stats);
    }
}
