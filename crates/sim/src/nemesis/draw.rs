//! Which fault comes next.

use quorate_raft::{ChangeStep, Index, NodeId};

use super::{Fault, Nemesis};
use crate::checkers::Checkers;
use crate::cluster::Cluster;
use crate::options::RunOptions;
use crate::storage::Crash;

impl Nemesis {
    /// Draws a fault by the weights of the options, inflicts it, and plans how it ends.
    pub(super) fn draw(&mut self, cluster: &mut Cluster, checkers: &Checkers) {
        self.retire_some(cluster, checkers);
        let weight = |name: &str| self.options.value(name).unwrap_or(0);
        let total: u64 = RunOptions::FAULTS.iter().map(|name| weight(name)).sum();
        let mut at = self.rng.below(total);
        for name in RunOptions::FAULTS {
            let weight = self.options.value(name).unwrap_or(0);
            if at < weight {
                return self.draw_kind(cluster, checkers, name);
            }
            at -= weight;
        }
    }

    fn draw_kind(&mut self, cluster: &mut Cluster, checkers: &Checkers, kind: &str) {
        let Some(node) = self.draw_node(cluster) else { return };
        let outage = self.draw_outage();
        match kind {
            "kill" | "power_cut" => {
                let crash = if kind == "kill" { Crash::Kill } else { Crash::PowerCut };
                self.inflict(cluster, checkers, Fault::Crash(node, crash));
                self.restart_later(cluster, node, outage);
            }
            "crash_in_step" => {
                let actions = self.rng.below(5) as usize;
                let crash = self.draw_crash();
                self.inflict(cluster, checkers, Fault::CrashInStep(node, actions, crash));
                self.restart_later(cluster, node, outage);
            }
            "blackout" => {
                for node in cluster.nodes() {
                    self.inflict(cluster, checkers, Fault::Crash(node, Crash::PowerCut));
                    let outage = self.draw_outage();
                    self.restart_later(cluster, node, outage);
                }
            }
            "pause" => {
                self.inflict(cluster, checkers, Fault::Pause(node));
                self.later(cluster, outage, Fault::Resume(node));
            }
            "slow_disk" => {
                let us = self.rng.between(self.options.sync_max_us, self.options.election_max_us);
                self.inflict(cluster, checkers, Fault::SlowDisk(node, us));
                self.later(cluster, outage, Fault::SlowDisk(node, 0));
            }
            "stall_disk" => {
                let us = self.rng.between(self.options.disk_stall_us / 2, self.options.stall_us);
                self.inflict(cluster, checkers, Fault::StallDisk(node, us));
            }
            "fail_sync" => {
                self.inflict(cluster, checkers, Fault::FailSync(node));
                // Nobody knows when the next sync is.
                self.restart_later(cluster, node, outage);
                self.restart_later(cluster, node, 2 * outage + self.options.election_max_us);
            }
            "fail_reads" => {
                self.inflict(cluster, checkers, Fault::FailReads(node));
                self.later(cluster, outage, Fault::MendDisk(node));
            }
            "full_disk" => {
                let left = self.rng.below(2 * self.options.segment_bytes);
                self.inflict(cluster, checkers, Fault::FullDisk(node, left));
                self.later(cluster, outage, Fault::MendDisk(node));
            }
            "rot" => self.inflict(cluster, checkers, Fault::Rot(node)),
            "slow_apply" => {
                let us = self.rng.between(self.options.apply_us, self.options.election_max_us);
                self.inflict(cluster, checkers, Fault::SlowApply(node, us));
                self.later(cluster, outage, Fault::SlowApply(node, 0));
            }
            "wipe" => {
                self.inflict(cluster, checkers, Fault::Wipe(node));
                self.restart_later(cluster, node, outage);
            }
            "drift" => {
                let bound = self.options.drift_ppm;
                let ppm = i64::try_from(self.rng.between(0, 2 * bound)).unwrap_or(0)
                    - i64::try_from(bound).unwrap_or(0);
                let ppm = i32::try_from(ppm).unwrap_or(0);
                self.inflict(cluster, checkers, Fault::Drift(node, ppm));
            }
            "unreadable" => {
                let Some(host) = cluster.host(node) else { return };
                let log = host.storage().written();
                let (first, last) = (log.start.id.index.0 + 1, log.last().index.0);
                let first = self.rng.between(first, last);
                let last = self.rng.between(first, last);
                let fault = Fault::Unreadable(node, Index(first), Index(last));
                self.inflict(cluster, checkers, fault);
                self.later(cluster, outage, Fault::Repair(node));
            }
            "compact" => {
                let fault = self.draw_compaction(cluster, node);
                self.inflict(cluster, checkers, fault);
            }
            "change" => self.change(cluster, checkers),
            "transfer" => {
                let Some(leader) = cluster.leader() else { return };
                let Some(to) = self.draw_any(cluster) else { return };
                self.inflict(cluster, checkers, Fault::Transfer(leader, to));
            }
            "campaign" => self.inflict(cluster, checkers, Fault::Campaign(node)),
            "wrong_hint" => {
                let peer = cluster.leader().or_else(|| self.draw_any(cluster));
                let Some(peer) = peer.filter(|peer| *peer != node) else { return };
                self.inflict(cluster, checkers, Fault::Hint(node, peer));
            }
            _ => self.draw_network(cluster, checkers, kind, node, outage),
        }
    }

    fn draw_network(
        &mut self,
        cluster: &mut Cluster,
        checkers: &Checkers,
        kind: &str,
        node: NodeId,
        outage: u64,
    ) {
        let Some(other) = self.draw_any(cluster).filter(|other| *other != node) else { return };
        let others = || cluster.nodes().into_iter().filter(|other| *other != node);
        let (faults, end): (Vec<Fault>, Vec<Fault>) = match kind {
            "partition" => {
                let mut groups = vec![Vec::new(); self.rng.between(2, 3) as usize];
                for node in cluster.nodes() {
                    let group = self.rng.below(groups.len() as u64) as usize;
                    groups[group].push(node);
                }
                groups.retain(|group: &Vec<NodeId>| !group.is_empty());
                (vec![Fault::Partition(groups)], vec![Fault::Heal])
            }
            "one_way" => match self.rng.below(4) {
                0 => others().map(|to| (Fault::Cut(node, to), Fault::Restore(node, to))).unzip(),
                1 => others().map(|to| (Fault::Cut(to, node), Fault::Restore(to, node))).unzip(),
                _ => (vec![Fault::Cut(node, other)], vec![Fault::Restore(node, other)]),
            },
            "one_link" => (
                vec![Fault::Cut(node, other), Fault::Cut(other, node)],
                vec![Fault::Restore(node, other), Fault::Restore(other, node)],
            ),
            "isolate" => others()
                .flat_map(|to| {
                    [
                        (Fault::Cut(node, to), Fault::Restore(node, to)),
                        (Fault::Cut(to, node), Fault::Restore(to, node)),
                    ]
                })
                .unzip(),
            "clog" => (vec![Fault::Clog(node, other, outage)], Vec::new()),
            "storm" => {
                let loss = self.rng.between(50_000, 400_000) as u32;
                let duplicate = self.rng.between(0, 200_000) as u32;
                (vec![Fault::Storm(loss, duplicate)], vec![Fault::EndStorm])
            }
            _ => return,
        };
        for fault in faults {
            self.inflict(cluster, checkers, fault);
        }
        for fault in end {
            self.later(cluster, outage, fault);
        }
    }

    fn change(&mut self, cluster: &mut Cluster, checkers: &Checkers) {
        let leader = cluster.leader().filter(|_| !self.rng.chance(50_000));
        let Some(node) = leader.or_else(|| self.draw_any(cluster)) else { return };
        let Some(brief) = cluster.host(node).and_then(|host| host.brief()) else { return };
        let membership = std::sync::Arc::clone(&brief.membership);
        let change = self.draw_change(cluster, &membership);
        // A new member usually runs before it is added, and sometimes only later.
        let named = change.steps.iter().filter_map(ChangeStep::node);
        let new = named.filter(|node| cluster.host(*node).is_none() && node.0 <= self.last_node);
        for new in new.collect::<Vec<_>>() {
            match self.rng.chance(700_000) {
                true => self.inflict(cluster, checkers, Fault::AddHost(new)),
                false => {
                    let after = self.draw_outage();
                    self.later(cluster, after, Fault::AddHost(new));
                }
            }
        }
        self.inflict(cluster, checkers, Fault::Change(node, change));
    }

    fn draw_compaction(&mut self, cluster: &Cluster, node: NodeId) -> Fault {
        let applied = cluster.host(node).and_then(|host| host.brief()).map(|brief| brief.applied);
        match applied {
            Some(applied) if self.rng.chance(600_000) => {
                let behind = self.rng.below(8);
                Fault::Compact(node, Index(applied.0.saturating_sub(behind)))
            }
            _ => Fault::Flush(node),
        }
    }

    /// Servers that were removed are left alone for a while, to see whether they disturb, and then
    /// shut down.
    fn retire_some(&mut self, cluster: &mut Cluster, checkers: &Checkers) {
        let Some((_, committed)) = checkers.committed_membership() else { return };
        let is_outside = |node: &NodeId| {
            let was_member = node.0 <= self.options.voters + self.options.learners
                || self.wiped.contains(node)
                || cluster.host(*node).is_some_and(|host| {
                    host.brief().is_some_and(|brief| !brief.membership.is_empty())
                });
            was_member && !committed.contains(*node) && !self.retired.contains(node)
        };
        let outside: Vec<NodeId> = cluster.nodes().into_iter().filter(is_outside).collect();
        for node in outside {
            if self.rng.chance(200_000) {
                self.inflict(cluster, checkers, Fault::Retire(node));
            }
        }
    }

    /// The leader, or anyone.
    fn draw_node(&mut self, cluster: &Cluster) -> Option<NodeId> {
        let leader = cluster.leader().filter(|_| self.rng.chance(350_000));
        leader.or_else(|| self.draw_any(cluster))
    }

    fn draw_any(&mut self, cluster: &Cluster) -> Option<NodeId> {
        let nodes: Vec<NodeId> =
            cluster.nodes().into_iter().filter(|node| !self.retired.contains(node)).collect();
        self.rng.pick(&nodes).copied()
    }

    fn draw_crash(&mut self) -> Crash {
        if self.rng.chance(500_000) { Crash::Kill } else { Crash::PowerCut }
    }

    /// Mostly short, sometimes as long as it may be.
    fn draw_outage(&mut self) -> u64 {
        let longest = self.options.outage_us;
        match self.rng.below(4) {
            0 => self.rng.between(0, longest),
            1 => self.rng.between(0, longest / 4 + 1),
            _ => self.rng.between(0, self.options.election_max_us.min(longest)),
        }
    }

    fn restart_later(&mut self, cluster: &mut Cluster, node: NodeId, after_us: u64) {
        self.later(cluster, after_us, Fault::Restart(node));
        // Now and then the next crash comes while it still recovers.
        if self.rng.chance(30_000) {
            let crash = self.draw_crash();
            let soon = self.rng.between(0, self.options.recovery_us);
            self.later(cluster, after_us + soon, Fault::Crash(node, crash));
            self.later(cluster, 2 * after_us + soon, Fault::Restart(node));
        }
    }
}
