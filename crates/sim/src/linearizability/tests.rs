//! The checker against histories of real atomic objects, and against all permutations.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::*;

/// A model with an implementation of its own, to make histories of.
trait Subject: Model {
    fn random_op(random: &mut Random) -> Self::Op;
    fn execute(state: &mut Self::State, op: &Self::Op) -> Self::Reply;
    fn random_reply(random: &mut Random, op: &Self::Op) -> Self::Reply;
}

impl Subject for Register {
    fn random_op(random: &mut Random) -> RegisterOp {
        match random.below(3) {
            0 => RegisterOp::Read,
            1 => RegisterOp::Write(random.below(3)),
            _ => RegisterOp::CompareAndSwap { expected: random.value(), new: random.below(3) },
        }
    }

    fn execute(state: &mut Option<u64>, op: &RegisterOp) -> RegisterReply {
        match *op {
            RegisterOp::Read => return RegisterReply::Value(*state),
            RegisterOp::Write(value) => *state = Some(value),
            RegisterOp::CompareAndSwap { expected, new } => {
                if *state != expected {
                    return RegisterReply::Swapped(false);
                }
                *state = Some(new);
                return RegisterReply::Swapped(true);
            }
        }
        RegisterReply::Done
    }

    fn random_reply(random: &mut Random, op: &RegisterOp) -> RegisterReply {
        match op {
            RegisterOp::Read => RegisterReply::Value(random.value()),
            RegisterOp::Write(_) => RegisterReply::Done,
            RegisterOp::CompareAndSwap { .. } => RegisterReply::Swapped(random.below(2) == 0),
        }
    }
}

impl Subject for KeyValue<u64, u64> {
    fn random_op(random: &mut Random) -> KeyValueOp<u64, u64> {
        let action = match random.below(4) {
            0 => KeyValueAction::Get,
            1 => KeyValueAction::Put(random.below(3)),
            2 => KeyValueAction::Delete,
            _ => KeyValueAction::CompareAndSwap { expected: random.value(), new: random.value() },
        };
        KeyValueOp { key: random.below(2), action }
    }

    fn execute(state: &mut Option<u64>, op: &KeyValueOp<u64, u64>) -> KeyValueReply<u64> {
        let before = *state;
        match op.action {
            KeyValueAction::Get => {}
            KeyValueAction::Put(value) => *state = Some(value),
            KeyValueAction::Delete => *state = None,
            KeyValueAction::CompareAndSwap { expected, new } => {
                if before == expected {
                    *state = new;
                }
                return KeyValueReply::Swapped(before == expected);
            }
        }
        KeyValueReply::Value(before)
    }

    fn random_reply(random: &mut Random, op: &KeyValueOp<u64, u64>) -> KeyValueReply<u64> {
        match op.action {
            KeyValueAction::CompareAndSwap { .. } => KeyValueReply::Swapped(random.chance(50)),
            KeyValueAction::Put(_) | KeyValueAction::Delete if random.chance(50) => {
                KeyValueReply::Done
            }
            _ => KeyValueReply::Value(random.value()),
        }
    }
}

/// A list that only grows: every order of the operations leads to another state.
struct Journal;

#[derive(Clone, Debug, PartialEq)]
enum JournalOp {
    Read,
    /// Answered by what was there before.
    Append(u64),
}

#[derive(Clone, Debug)]
struct Entries(Vec<u64>);

impl fmt::Display for JournalOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl fmt::Display for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Model for Journal {
    type State = Vec<u64>;
    type Op = JournalOp;
    type Reply = Entries;
    type Key = ();

    fn initial(&self) -> Vec<u64> {
        Vec::new()
    }

    fn step(&self, state: &Vec<u64>, op: &JournalOp, reply: Option<&Entries>) -> Option<Vec<u64>> {
        if reply.is_some_and(|reply| reply.0 != *state) {
            return None;
        }
        let mut next = state.clone();
        if let JournalOp::Append(entry) = op {
            next.push(*entry);
        }
        Some(next)
    }

    fn is_read(&self, op: &JournalOp, _: Option<&Entries>) -> bool {
        *op == JournalOp::Read
    }
}

impl Subject for Journal {
    fn random_op(random: &mut Random) -> JournalOp {
        if random.below(3) == 0 { JournalOp::Read } else { JournalOp::Append(random.below(2)) }
    }

    fn execute(state: &mut Vec<u64>, op: &JournalOp) -> Entries {
        let before = Entries(state.clone());
        if let JournalOp::Append(entry) = op {
            state.push(*entry);
        }
        before
    }

    fn random_reply(random: &mut Random, _: &JournalOp) -> Entries {
        Entries((0..random.below(3)).map(|_| random.below(2)).collect())
    }
}

/// A counter whose increments are all equal and can be told apart by nothing.
struct Counter;

#[derive(Clone, Debug, PartialEq)]
enum CounterOp {
    Read,
    /// Answered by the sum, but the sum may be off by one: the model does not check it further.
    Add(u64),
}

impl fmt::Display for CounterOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Model for Counter {
    type State = u64;
    type Op = CounterOp;
    type Reply = u64;
    type Key = ();

    fn initial(&self) -> u64 {
        0
    }

    fn step(&self, state: &u64, op: &CounterOp, reply: Option<&u64>) -> Option<u64> {
        let (next, possible) = match op {
            CounterOp::Read => (*state, reply.is_none_or(|reply| reply == state)),
            CounterOp::Add(n) => (state + n, reply.is_none_or(|reply| reply.abs_diff(*state) <= 1)),
        };
        possible.then_some(next)
    }
}

impl Subject for Counter {
    fn random_op(random: &mut Random) -> CounterOp {
        if random.below(2) == 0 { CounterOp::Read } else { CounterOp::Add(1 + random.below(2)) }
    }

    fn execute(state: &mut u64, op: &CounterOp) -> u64 {
        let before = *state;
        if let CounterOp::Add(n) = op {
            *state += n;
        }
        before
    }

    fn random_reply(random: &mut Random, _: &CounterOp) -> u64 {
        random.below(5)
    }
}

/// A stream of numbers that a seed decides (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).expect("less than a usize")
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn value(&mut self) -> Option<u64> {
        self.below(4).checked_sub(1)
    }
}

/// What a run looks like.
#[derive(Clone, Copy)]
struct Shape {
    operations: usize,
    clients: u64,
    unknown_percent: u64,
    /// How far time moves between two events, at most. With 1, many events share an instant.
    step_max: u64,
}

/// Runs clients against one atomic object per key; so the history is linearizable by construction.
fn run<S: Subject>(
    model: &S,
    shape: Shape,
    random: &mut Random,
    mut next_op: impl FnMut(&mut Random) -> S::Op,
) -> History<S::Op, S::Reply> {
    enum Client<I, O, R> {
        Idle,
        Waiting(I, O),
        Answered(I, R),
    }
    let mut history = History::new();
    let mut objects = BTreeMap::new();
    let mut clients: Vec<_> = (0..shape.clients).map(|_| Client::Idle).collect();
    let mut abandoned: Vec<S::Op> = Vec::new();
    let mut execute = |op: &S::Op| {
        let object = objects.entry(model.key(op)).or_insert_with(|| model.initial());
        S::execute(object, op)
    };
    let (mut invoked, mut now) = (0, 0);
    loop {
        now += random.below(shape.step_max + 1);
        let chosen = random.index(clients.len());
        let client = &mut clients[chosen];
        *client = match std::mem::replace(client, Client::Idle) {
            Client::Idle if invoked == shape.operations => break,
            Client::Idle => {
                invoked += 1;
                let op = next_op(random);
                Client::Waiting(history.invoke(ClientId(chosen as u64), op.clone(), now), op)
            }
            Client::Waiting(_, op) if random.chance(shape.unknown_percent) => {
                abandoned.push(op);
                Client::Idle
            }
            Client::Waiting(id, op) => Client::Answered(id, execute(&op)),
            Client::Answered(id, reply) => {
                history.complete(id, reply, now);
                Client::Idle
            }
        };
        if !abandoned.is_empty() && random.chance(10) {
            execute(&abandoned.swap_remove(random.index(abandoned.len())));
        }
    }
    history
}

/// The same history, but with the reply of one operation replaced at random.
fn with_one_reply_changed<S: Subject>(
    history: &History<S::Op, S::Reply>,
    random: &mut Random,
) -> History<S::Op, S::Reply> {
    let mut operations = history.operations().to_vec();
    let chosen = random.index(operations.len());
    let Operation { op, outcome, .. } = &mut operations[chosen];
    if let Outcome::Returned { reply, .. } = outcome {
        *reply = S::random_reply(random, op);
    }
    operations.into_iter().collect()
}

/// A few operations at random times with random replies.
fn random_history<S: Subject>(random: &mut Random) -> History<S::Op, S::Reply> {
    let mut history = History::new();
    let count = 1 + random.below(7);
    let mut clock = [0; 4];
    for _ in 0..count {
        let client = random.index(clock.len());
        let now = &mut clock[client];
        let op = S::random_op(random);
        *now += random.below(3);
        let id = history.invoke(ClientId(client as u64), op.clone(), *now);
        if random.chance(10) {
            history.fail(id);
        } else if random.chance(75) {
            *now += random.below(4);
            history.complete(id, S::random_reply(random, &op), *now);
        }
    }
    history
}

/// Whether there is a permutation of all operations that returned by `end`, and of any others, which
/// is an order.
fn has_order<M: Model>(
    model: &M,
    from: &M::State,
    operations: &[&Operation<M::Op, M::Reply>],
    end: u64,
) -> bool {
    let precedes = |a: usize, b: usize| {
        let (first, second) = (operations[a], operations[b]);
        let same_client = first.client == second.client && a < b;
        first.returned().is_some_and(|returned| {
            returned < second.invoked || same_client && returned == second.invoked
        })
    };
    let may_be_left = |index: usize| operations[index].returned().is_none_or(|at| at > end);
    let step = |state: &M::State, index: usize| {
        model.step(state, &operations[index].op, operations[index].reply())
    };
    let invoked = (0..operations.len()).filter(|index| operations[*index].invoked <= end);
    permute(&invoked.collect::<Vec<_>>(), from, &precedes, &step, &may_be_left)
}

fn permute<S>(
    left: &[usize],
    state: &S,
    precedes: &impl Fn(usize, usize) -> bool,
    step: &impl Fn(&S, usize) -> Option<S>,
    may_be_left: &impl Fn(usize) -> bool,
) -> bool {
    left.iter().all(|index| may_be_left(*index))
        || left.iter().any(|&next| {
            let rest: Vec<_> = left.iter().copied().filter(|other| *other != next).collect();
            !rest.iter().any(|other| precedes(*other, next))
                && step(state, next)
                    .is_some_and(|state| permute(&rest, &state, precedes, step, may_be_left))
        })
}

/// For each key the earliest time by which it had no order any more.
fn ends_of_order<M: Model>(
    model: &M,
    history: &History<M::Op, M::Reply>,
) -> BTreeMap<Option<M::Key>, u64> {
    let mut by_key: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for operation in history.operations() {
        if !matches!(operation.outcome, Outcome::Failed) {
            by_key.entry(model.key(&operation.op)).or_default().push(operation);
        }
    }
    let end_of_order = |(key, operations): (_, Vec<_>)| {
        let has_order = |end: u64| has_order(model, &model.initial(), &operations, end);
        if has_order(u64::MAX) {
            return None;
        }
        let ends: BTreeSet<_> = operations.iter().filter_map(|o| o.returned()).collect();
        Some((key, ends.into_iter().find(|end| !has_order(*end))?))
    };
    by_key.into_iter().filter_map(end_of_order).collect()
}

/// Whether what a counterexample shows is a contradiction by itself.
fn is_contradiction<M: Model>(model: &M, shown: &Counterexample<M>) -> bool {
    let operations: Vec<_> = shown.operations.iter().collect();
    !shown.from.iter().any(|state| has_order(model, state, &operations, u64::MAX))
}

/// Compares verdicts on thousands of tiny histories, about half of them wrong.
fn agrees_with_permutations<S: Subject>(model: &S, seed: u64) {
    let mut random = Random(seed);
    let mut verdicts = [0, 0];
    for round in 0..6_000 {
        let shape = Shape {
            operations: 1 + random.index(7),
            clients: 1 + random.below(4),
            unknown_percent: 10 * random.below(6),
            step_max: 1 + random.below(3),
        };
        let history = if round % 2 == 0 {
            random_history::<S>(&mut random)
        } else {
            let correct = run(model, shape, &mut random, S::random_op);
            with_one_reply_changed::<S>(&correct, &mut random)
        };
        let expected = ends_of_order(model, &history);
        verdicts[usize::from(expected.is_empty())] += 1;
        match check(model, &history, Limits::default()) {
            Verdict::Linearizable => {
                assert!(expected.is_empty(), "accepted {:?}", replay(&history));
            }
            Verdict::NotLinearizable(shown) => {
                let end = shown.operations[shown.unexplained].returned();
                let expected = expected.get(&shown.key).copied();
                assert!(expected.is_some(), "rejected {:?}\n{shown}", replay(&history));
                assert_eq!(end, expected, "the first: {:?}\n{shown}", replay(&history));
                assert!(is_contradiction(model, &shown), "{shown}");
            }
            Verdict::Undecided { visited } => panic!("undecided after {visited}"),
        }
    }
    assert!(verdicts.iter().all(|count| *count > 1_000), "one-sided: {verdicts:?}");
}

fn replay<Op: fmt::Display, Reply: fmt::Display>(history: &History<Op, Reply>) -> Vec<String> {
    let line = |o: &Operation<Op, Reply>| {
        let reply = o.reply().map(ToString::to_string);
        format!("{} {}..{:?} {} => {reply:?}", o.client, o.invoked, o.returned(), o.op)
    };
    history.operations().iter().map(line).collect()
}

#[test]
fn register_agrees_with_permutations() {
    agrees_with_permutations(&Register, 1);
}

#[test]
fn key_value_agrees_with_permutations() {
    agrees_with_permutations(&KeyValue::<u64, u64>::new(), 2);
}

#[test]
fn journal_agrees_with_permutations() {
    agrees_with_permutations(&Journal, 3);
}

#[test]
fn counter_agrees_with_permutations() {
    agrees_with_permutations(&Counter, 4);
}

#[test]
fn atomic_objects_are_always_accepted() {
    fn accepts_all<S: Subject>(model: &S) {
        for seed in 0..60 {
            let mut random = Random(seed);
            let shape = Shape {
                operations: 150,
                clients: 1 + seed % 6,
                unknown_percent: seed % 4 * 4,
                step_max: 1 + seed % 3,
            };
            let history = run(model, shape, &mut random, S::random_op);
            let verdict = check(model, &history, Limits::default());
            assert!(verdict.is_linearizable(), "seed {seed}: {verdict}");
        }
    }
    accepts_all(&Register);
    accepts_all(&KeyValue::<u64, u64>::new());
    accepts_all(&Journal);
    accepts_all(&Counter);
}

const BIG: Shape = Shape { operations: 20_000, clients: 5, unknown_percent: 5, step_max: 20 };

/// Writes with values of their own on ten keys: what the simulator's workload looks like.
fn big_history(
    seed: u64,
    keys: u64,
    shape: Shape,
) -> History<KeyValueOp<u64, u64>, KeyValueReply<u64>> {
    let mut written = 0;
    let model = KeyValue::<u64, u64>::new();
    run(&model, shape, &mut Random(seed), |random| {
        written += 1;
        let action = match random.below(10) {
            0..5 => KeyValueAction::Get,
            5..8 => KeyValueAction::Put(written),
            8 => KeyValueAction::Delete,
            _ => KeyValueAction::CompareAndSwap { expected: random.value(), new: Some(written) },
        };
        KeyValueOp { key: random.below(keys), action }
    })
}

/// Puts whose replies tell nothing, so that all must be inferred from reads.
fn without_previous_values(
    history: &History<KeyValueOp<u64, u64>, KeyValueReply<u64>>,
) -> History<KeyValueOp<u64, u64>, KeyValueReply<u64>> {
    let mut operations = history.operations().to_vec();
    for operation in &mut operations {
        let is_put = matches!(operation.op.action, KeyValueAction::Put(_) | KeyValueAction::Delete);
        if let Outcome::Returned { reply, .. } = &mut operation.outcome
            && is_put
        {
            *reply = KeyValueReply::Done;
        }
    }
    operations.into_iter().collect()
}

/// The limit stands for time: 2,000 operations of a key in a few thousand configurations.
#[test]
fn long_history_with_unknown_outcomes_is_cheap() {
    let limits = Limits { configurations_max: 5_000, ..Limits::default() };
    for seed in 0..3 {
        let history = big_history(seed, 10, BIG);
        let model = KeyValue::new();
        let verdict = check(&model, &history, limits);
        assert!(verdict.is_linearizable(), "seed {seed}: {verdict}");
        let verdict = check(&model, &without_previous_values(&history), limits);
        assert!(verdict.is_linearizable(), "seed {seed}: {verdict}");
    }
}

#[test]
fn long_history_with_one_wrong_reply_is_reduced_to_it() {
    let limits = Limits { configurations_max: 5_000, ..Limits::default() };
    for seed in 0..10 {
        let history = without_previous_values(&big_history(seed, 10, BIG));
        let mut operations = history.operations().to_vec();
        let first_put = operations.iter().find_map(|operation| match operation.op {
            KeyValueOp { key: 0, action: KeyValueAction::Put(value) } => {
                operation.returned().map(|_| value)
            }
            _ => None,
        });
        // Late in the history somebody reads what was overwritten long ago.
        let is_get = |o: &&mut Operation<KeyValueOp<u64, u64>, _>| {
            o.op == KeyValueOp { key: 0, action: KeyValueAction::Get } && o.returned().is_some()
        };
        let get = operations.iter_mut().skip(15_000).find(is_get).expect("one in twenty");
        let at = get.returned().expect("filtered above");
        get.outcome = Outcome::Returned { at, reply: KeyValueReply::Value(first_put) };
        let model = KeyValue::new();
        match check(&model, &operations.into_iter().collect(), limits) {
            Verdict::NotLinearizable(shown) => {
                assert_eq!(shown.operations[shown.unexplained].returned(), Some(at), "{shown}");
                assert!(shown.operations.len() <= 4, "{shown}");
                assert!(is_contradiction(&model, &shown), "{shown}");
            }
            verdict => panic!("seed {seed}: {verdict}"),
        }
    }
}
