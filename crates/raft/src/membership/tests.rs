use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::rng::Rng;

fn n(node: u64) -> NodeId {
    NodeId(node)
}

fn three() -> Membership {
    Membership::of_voters([n(1), n(2), n(3)])
}

fn steps(steps: impl IntoIterator<Item = ChangeStep>) -> Change {
    steps.into_iter().collect()
}

fn learner(node: u64) -> ChangeStep {
    ChangeStep::AddLearner { node: n(node), context: Bytes::new() }
}

#[test]
fn one_voter_more_or_less_goes_in_one_step() {
    let four = three().changed(&learner(4).into()).unwrap();
    assert_eq!(four.voters(), [n(1), n(2), n(3)]);
    let four = four.changed(&ChangeStep::Promote { node: n(4) }.into()).unwrap();
    assert!(!four.is_joint());
    assert_eq!(four.voters(), [n(1), n(2), n(3), n(4)]);
    let three = four.changed(&ChangeStep::Remove { node: n(1) }.into()).unwrap();
    assert!(!three.is_joint() && !three.contains(n(1)));
}

#[test]
fn more_than_one_passes_through_a_joint_configuration() {
    let with_learners = three().changed(&steps([learner(4), learner(5)])).unwrap();
    let change = steps([
        ChangeStep::Promote { node: n(4) },
        ChangeStep::Promote { node: n(5) },
        ChangeStep::Remove { node: n(1) },
        ChangeStep::Demote { node: n(2) },
    ]);
    let joint = with_learners.changed(&change).unwrap();
    assert_eq!(joint.to_string(), "+2 3 4 5 <- 1 2 3");
    assert!(joint.is_voter(n(1)) && joint.is_voter(n(2)) && joint.is_voter(n(5)));
    assert!(joint.contains(n(1)), "the leaving member still gets the log");
    let left = joint.leave();
    assert_eq!(left.to_string(), "+2 3 4 5");
    assert!(!left.contains(n(1)) && !left.is_voter(n(2)));
}

use alloc::string::ToString;

#[test]
fn a_replacement_leaves_when_its_successor_votes() {
    let add = ChangeStep::AddVoter { node: n(4), context: Bytes::new(), replaces: Some(n(2)) };
    let waiting = three().changed(&add.into()).unwrap();
    assert_eq!(waiting.to_string(), "1 2 3 ^4/2");
    let joint = waiting.changed(&ChangeStep::Promote { node: n(4) }.into()).unwrap();
    assert_eq!(joint.to_string(), "1 3 4 <- 1 2 3");
    assert_eq!(joint.leave().to_string(), "1 3 4");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let refused = |change: Change| three().changed(&change).unwrap_err();
    let remove = |node| ChangeStep::Remove { node: n(node) };
    assert_eq!(refused(Change::default()), InvalidChange::NoSteps);
    assert_eq!(refused(learner(2).into()), InvalidChange::AlreadyMember { node: n(2) });
    assert_eq!(refused(learner(0).into()), InvalidChange::ZeroId);
    assert_eq!(refused(remove(9).into()), InvalidChange::NotMember { node: n(9) });
    assert_eq!(refused(steps([remove(1), remove(2), remove(3)])), InvalidChange::NoVoterLeft);
    assert_eq!(refused(steps([remove(1), remove(1)])), InvalidChange::NamedTwice { node: n(1) });
    let promote = ChangeStep::Promote { node: n(1) };
    assert_eq!(refused(promote.into()), InvalidChange::NotLearner { node: n(1) });
    let two = three().with_feature_level(2);
    let lower = ChangeStep::SetFeatureLevel { level: 1 };
    let error = two.changed(&lower.into()).unwrap_err();
    assert_eq!(error, InvalidChange::FeatureLevelLowered { from: 2 });
}

#[test]
fn binding_only_touches_the_unbound() {
    let seen = vec![(n(1), Incarnation(11)), (n(9), Incarnation(99))];
    let bound = three().bind(&seen).unwrap();
    assert_eq!(bound.member(n(1)).unwrap().incarnation, Some(Incarnation(11)));
    assert_eq!(bound.bind(&[(n(1), Incarnation(12))]), None);
}

/// Every simple change that is allowed keeps majorities of neighbours meeting; a joint one meets
/// both of its sides (thesis 4.1, §6).
#[test]
fn neighbouring_quorums_meet() {
    let mut rng = Rng::new(3);
    for _ in 0..2_000 {
        let old = Membership::of_voters((1..=rng.between(1, 4)).map(n));
        let old = old.changed(&steps([learner(5), learner(6)])).unwrap();
        let mut change = Vec::new();
        for node in 1..=6 {
            let step = match rng.between(0, 2) {
                0 if node <= 4 && old.contains(n(node)) => ChangeStep::Remove { node: n(node) },
                1 if node >= 5 => ChangeStep::Promote { node: n(node) },
                _ => continue,
            };
            change.push(step);
        }
        let Ok(next) = old.changed(&steps(change)) else { continue };
        for one in 0u32..64 {
            for other in 0u32..64 {
                let holds = |set: u32| move |node: NodeId| set & (1 << (node.0 - 1)) != 0;
                if old.has_quorum(holds(one)) && next.has_quorum(holds(other)) {
                    assert!(one & other != 0, "{old} and {next} decide apart");
                }
            }
        }
    }
}

#[test]
fn bytes_there_and_back() {
    let mut joint = three()
        .changed(&steps([learner(4), learner(5)]))
        .unwrap()
        .changed(&steps([ChangeStep::Promote { node: n(4) }, ChangeStep::Remove { node: n(1) }]))
        .unwrap()
        .with_feature_level(3)
        .with_lease(Some(900_000));
    joint = joint.bind(&[(n(2), Incarnation(7))]).unwrap();
    joint.members.get_mut(&n(5)).unwrap().context = Bytes::from_static(b"host:1");
    for membership in [joint, three(), Membership::default()] {
        let bytes = membership.to_bytes();
        assert_eq!(Membership::from_bytes(&bytes).as_ref(), Ok(&membership));
        for len in 0..bytes.len() {
            assert!(Membership::from_bytes(&bytes[..len]).is_err(), "cut at {len}");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert_eq!(Membership::from_bytes(&longer), Err(MembershipBytesError::Length));
    }
    assert_eq!(Membership::from_bytes(&[9]), Err(MembershipBytesError::Version { found: 9 }));
}

/// Whatever the bytes, no panic; and what is read is written back the same.
#[test]
fn arbitrary_bytes() {
    let mut rng = Rng::new(4);
    let good = three().changed(&learner(4).into()).unwrap().to_bytes();
    for _ in 0..20_000 {
        let mut bytes = good.to_vec();
        for _ in 0..rng.between(1, 4) {
            let at = rng.between(0, bytes.len() as u64 - 1) as usize;
            bytes[at] = rng.between(0, 255) as u8;
        }
        if let Ok(membership) = Membership::from_bytes(&bytes) {
            assert_eq!(membership.to_bytes(), bytes);
        }
    }
}
