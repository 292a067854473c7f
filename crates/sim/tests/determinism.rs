//! Same seed, same bytes. Everything else rests on this: a failure that cannot be had again cannot be
//! understood.

use quorate_sim::report::trace_lines;
use quorate_sim::run::{Outcome, Plan, run, run_watched};

fn plan(seed: u64, steps: u64) -> Plan {
    Plan { steps, ..Plan::of_seed(seed) }
}

fn traced(plan: &Plan) -> (String, Outcome) {
    let mut trace = String::new();
    let outcome = run_watched(plan, &mut |step, observations| {
        for line in trace_lines(step, observations) {
            trace.push_str(&line);
            trace.push('\n');
        }
    });
    (trace, outcome)
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..6 {
        let (first, one) = traced(&plan(seed, 3_000));
        let (second, two) = traced(&plan(seed, 3_000));
        assert!(first.len() > 10_000, "seed {seed} is too quiet to prove anything");
        assert_eq!(first, second, "seed {seed}");
        assert_eq!((one.digest, one.stats, one.marks), (two.digest, two.stats, two.marks));
        assert_eq!(one.plan, two.plan);
    }
}

#[test]
fn other_seeds_give_other_runs() {
    let mut digests: Vec<u64> = (0..20).map(|seed| run(&plan(seed, 500)).digest).collect();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), 20);
}

#[test]
fn watching_changes_nothing() {
    for seed in 20..24 {
        assert_eq!(traced(&plan(seed, 2_000)).1.digest, run(&plan(seed, 2_000)).digest);
    }
}

/// Runs share nothing, so several at the same time are no different.
#[test]
fn threads_change_nothing() {
    let alone: Vec<u64> = (30..34).map(|seed| run(&plan(seed, 2_000)).digest).collect();
    let together: Vec<u64> = std::thread::scope(|scope| {
        let runs: Vec<_> =
            (30..34).map(|seed| scope.spawn(move || run(&plan(seed, 2_000)).digest)).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert_eq!(alone, together);
}

/// A list of faults is the same story as the seed that drew them.
#[test]
fn the_faults_of_a_run_can_be_followed() {
    for seed in 40..46 {
        let drawn = run(&plan(seed, 3_000));
        let again = run(&drawn.plan);
        assert_eq!(again.violation, None, "seed {seed}");
        let (drawn, again) = (drawn.plan.faults.unwrap(), again.plan.faults.unwrap());
        // What happens at the very same microsecond may change places.
        assert_eq!(drawn.first(), again.first());
        assert!(again.len() * 10 >= drawn.len() * 9, "seed {seed}");
    }
}

#[test]
fn a_plan_survives_being_written_down() {
    let outcome = run(&plan(3, 2_000));
    let text = outcome.plan.to_string();
    let read: Plan = text.parse().unwrap();
    assert_eq!(read, outcome.plan);
    assert_eq!(run(&read).digest, run(&outcome.plan).digest);
}
