use super::*;
use crate::entry::Payload;
use crate::rng::Rng;
use bytes::Bytes;

fn entry(index: u64, term: u64) -> Entry {
    Entry::new(Index(index), Term(term), Payload::Command(Bytes::from(vec![0; 10])))
}

fn log_of(terms: &[u64]) -> Log {
    let mut log = Log::new(LogId::ZERO, &[], Index(0));
    for (index, term) in (1..).zip(terms) {
        log.append(entry(index, *term));
    }
    log
}

use alloc::vec;

#[test]
fn terms_by_runs() {
    let log = log_of(&[1, 1, 1, 4, 4, 5, 5, 6, 6, 6]);
    assert_eq!(log.last(), LogId::new(Index(10), Term(6)));
    assert_eq!(log.term_at(Index(0)), Some(Term(0)));
    assert_eq!(log.term_at(Index(3)), Some(Term(1)));
    assert_eq!(log.term_at(Index(4)), Some(Term(4)));
    assert_eq!(log.term_at(Index(11)), None);
    assert_eq!(log.last_index_of(Term(4)), Some(Index(5)));
    assert_eq!(log.last_index_of(Term(6)), Some(Index(10)));
    assert_eq!(log.last_index_of(Term(2)), None);
    assert_eq!(log.last_index_of(Term(7)), None);
    let conflict = Conflict { term: Some(Term(5)), first_index: Index(6) };
    assert_eq!(log.conflict_at(Index(7)), conflict);
    assert_eq!(log.conflict_at(Index(12)), Conflict { term: None, first_index: Index(11) });
}

#[test]
fn the_tail_is_bounded_but_keeps_what_is_not_durable() {
    let mut log = log_of(&[1; 10]);
    let size = entry(1, 1).size();
    log.evict(Index(4), 0);
    assert_eq!(log.tail_bytes(), 6 * size);
    assert_eq!(log.recent(Index(4), Index(10), usize::MAX), None);
    let (entries, bytes) = log.recent(Index(5), Index(10), 2 * size).unwrap();
    assert_eq!((entries.len(), bytes), (2, 2 * size));
    let (entries, _) = log.recent(Index(5), Index(10), 1).unwrap();
    assert_eq!(entries.len(), 1, "at least one, however small the limit");
    assert_eq!(log.recent(Index(11), Index(11), usize::MAX), None);
}

/// Random operations against a plain list of terms.
#[test]
fn like_a_list() {
    let mut rng = Rng::new(7);
    for _ in 0..300 {
        // `model[i]` is the term of index `start + i`; the first is the compacted one.
        let mut start = 0;
        let mut model = vec![0];
        let mut log = log_of(&[]);
        for _ in 0..200 {
            let last = start + model.len() as u64 - 1;
            match rng.between(0, 9) {
                0 if last > start => {
                    let first = rng.between(start + 1, last);
                    log.truncate(Index(first));
                    model.truncate((first - start) as usize);
                }
                1 => {
                    let up_to = rng.between(start, last);
                    let term = model[(up_to - start) as usize];
                    log.compact(LogId::new(Index(up_to), Term(term)));
                    model.drain(..(up_to - start) as usize);
                    start = up_to;
                }
                2 if rng.between(0, 9) == 0 => {
                    start = last + rng.between(0, 5);
                    model = vec![model.last().unwrap() + rng.between(0, 2)];
                    log.reset(LogId::new(Index(start), Term(model[0])));
                }
                _ => {
                    let term = model.last().unwrap() + u64::from(rng.between(0, 3) == 0);
                    let term = term.max(1);
                    log.append(entry(last + 1, term));
                    model.push(term);
                }
            }
            let last = start + model.len() as u64 - 1;
            assert_eq!(log.base(), LogId::new(Index(start), Term(model[0])));
            assert_eq!(log.last(), LogId::new(Index(last), Term(*model.last().unwrap())));
            for (index, term) in (start..).zip(&model) {
                assert_eq!(log.term_at(Index(index)), Some(Term(*term)));
            }
            assert_eq!(log.term_at(Index(last + 1)), None);
            for index in start + 1..=last {
                let term = model[(index - start) as usize];
                let run = |index: u64| model[(index - start) as usize] == term;
                let first = (start + 1..=index).rev().take_while(|i| run(*i)).last().unwrap();
                let expected = Conflict { term: Some(Term(term)), first_index: Index(first) };
                assert_eq!(log.conflict_at(Index(index)), expected);
                let last_of = (start..=last).rev().find(|i| run(*i)).map(Index);
                assert_eq!(log.last_index_of(Term(term)), last_of);
            }
        }
    }
}
