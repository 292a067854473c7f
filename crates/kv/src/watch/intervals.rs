//! Which of many intervals contain a key.
//!
//! A treap by start: a binary search tree whose shape comes from random priorities, so that it is balanced whatever order
//! the intervals come in. Each node knows the largest end below it, so that a search leaves out whatever ends before the
//! key: O(log n) and what is found.

use bytes::Bytes;

/// Where an interval ends, itself not included.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    Before(Bytes),
    Never,
}

impl End {
    fn is_after(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < &end[..],
            Self::Never => true,
        }
    }
}

type Link = Option<u32>;

#[derive(Debug)]
struct Node {
    start: Bytes,
    end: End,
    slot: u32,
    priority: u64,
    /// The largest end in this node and below.
    last_end: End,
    left: Link,
    right: Link,
}

/// Intervals, each with a number of the owner's.
#[derive(Debug, Default)]
pub(super) struct Intervals {
    nodes: Vec<Node>,
    free: Vec<u32>,
    root: Link,
    inserted: u64,
}

impl Intervals {
    pub(super) fn find(&self, start: &Bytes, end: &End) -> Option<u32> {
        let mut link = self.root;
        while let Some(at) = link {
            let node = self.node(at);
            link = match (start, end).cmp(&(&node.start, &node.end)) {
                core::cmp::Ordering::Less => node.left,
                core::cmp::Ordering::Equal => return Some(node.slot),
                core::cmp::Ordering::Greater => node.right,
            };
        }
        None
    }

    /// Adds an interval that is not there.
    pub(super) fn insert(&mut self, start: Bytes, end: End, slot: u32) {
        self.inserted += 1;
        let priority = mixed(self.inserted);
        let last_end = end.clone();
        let node = Node { start, end, slot, priority, last_end, left: None, right: None };
        let new = match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                u32::try_from(self.nodes.len() - 1).expect("fewer intervals than numbers")
            }
        };
        self.root = Some(self.insert_below(self.root, new));
    }

    fn insert_below(&mut self, link: Link, new: u32) -> u32 {
        let Some(at) = link else { return new };
        let (new_node, node) = (self.node(new), self.node(at));
        let is_left = (&new_node.start, &new_node.end) < (&node.start, &node.end);
        if new_node.priority > node.priority {
            let (left, right) = self.split(Some(at), new);
            let node = self.node_mut(new);
            (node.left, node.right) = (left, right);
            self.update(new);
            return new;
        }
        if is_left {
            let left = self.insert_below(node.left, new);
            self.node_mut(at).left = Some(left);
        } else {
            let right = self.insert_below(node.right, new);
            self.node_mut(at).right = Some(right);
        }
        self.update(at);
        at
    }

    /// What is before the node `new`, and what is after it.
    fn split(&mut self, link: Link, new: u32) -> (Link, Link) {
        let Some(at) = link else { return (None, None) };
        let (new_node, node) = (self.node(new), self.node(at));
        if (&node.start, &node.end) < (&new_node.start, &new_node.end) {
            let (left, right) = self.split(node.right, new);
            self.node_mut(at).right = left;
            self.update(at);
            (Some(at), right)
        } else {
            let (left, right) = self.split(node.left, new);
            self.node_mut(at).left = right;
            self.update(at);
            (left, Some(at))
        }
    }

    /// Removes an interval, if it is there.
    pub(super) fn remove(&mut self, start: &Bytes, end: &End) {
        self.root = self.remove_below(self.root, start, end);
    }

    fn remove_below(&mut self, link: Link, start: &Bytes, end: &End) -> Link {
        let at = link?;
        let node = self.node(at);
        let (left, right) = (node.left, node.right);
        match (start, end).cmp(&(&node.start, &node.end)) {
            core::cmp::Ordering::Less => {
                let left = self.remove_below(left, start, end);
                self.node_mut(at).left = left;
            }
            core::cmp::Ordering::Greater => {
                let right = self.remove_below(right, start, end);
                self.node_mut(at).right = right;
            }
            core::cmp::Ordering::Equal => {
                let node = self.node_mut(at);
                // The keys may be large, and the place may stay free for long.
                (node.start, node.end, node.last_end) = (Bytes::new(), End::Never, End::Never);
                self.free.push(at);
                return self.join(left, right);
            }
        }
        self.update(at);
        Some(at)
    }

    /// One tree of two, of which the first is all before the second.
    fn join(&mut self, left: Link, right: Link) -> Link {
        let (Some(first), Some(second)) = (left, right) else { return left.or(right) };
        let top = if self.node(first).priority > self.node(second).priority {
            let below = self.join(self.node(first).right, right);
            self.node_mut(first).right = below;
            first
        } else {
            let below = self.join(left, self.node(second).left);
            self.node_mut(second).left = below;
            second
        };
        self.update(top);
        Some(top)
    }

    /// Adds the numbers of all intervals that contain a key.
    pub(super) fn containing(&self, key: &[u8], found: &mut Vec<u32>) {
        self.search(self.root, key, found);
    }

    fn search(&self, link: Link, key: &[u8], found: &mut Vec<u32>) {
        let Some(at) = link else { return };
        let node = self.node(at);
        if !node.last_end.is_after(key) {
            return;
        }
        self.search(node.left, key, found);
        // What follows starts even later.
        if &node.start[..] <= key {
            if node.end.is_after(key) {
                found.push(node.slot);
            }
            self.search(node.right, key, found);
        }
    }

    fn update(&mut self, at: u32) {
        let node = self.node(at);
        let below = [node.left, node.right].into_iter().flatten();
        let ends = below.map(|link| &self.node(link).last_end).chain([&node.end]);
        let last_end = ends.max().expect("the node itself has an end").clone();
        self.node_mut(at).last_end = last_end;
    }

    fn node(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }

    fn node_mut(&mut self, at: u32) -> &mut Node {
        &mut self.nodes[at as usize]
    }
}

/// The n-th number of the splitmix generator.
pub(super) fn mixed(n: u64) -> u64 {
    let mut mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn depth(intervals: &Intervals, link: Link) -> usize {
        link.map_or(0, |at| {
            let node = intervals.node(at);
            1 + depth(intervals, node.left).max(depth(intervals, node.right))
        })
    }

    #[test]
    fn finds_what_a_look_at_every_interval_finds() {
        let key = |n: u64| Bytes::from(format!("{:02}", n % 40));
        for seed in 0..200 {
            let mut intervals = Intervals::default();
            let mut all: BTreeMap<(Bytes, End), u32> = BTreeMap::new();
            for step in 0..120_u32 {
                let random = mixed(seed * 1000 + u64::from(step));
                let end = match random >> 60 {
                    0 => End::Never,
                    _ => End::Before(key(random >> 20)),
                };
                let interval = (key(random >> 10), end);
                assert_eq!(
                    intervals.find(&interval.0, &interval.1),
                    all.get(&interval).copied(),
                    "seed {seed}"
                );
                if all.contains_key(&interval) || random & 3 == 0 {
                    intervals.remove(&interval.0, &interval.1);
                    all.remove(&interval);
                } else {
                    intervals.insert(interval.0.clone(), interval.1.clone(), step);
                    all.insert(interval, step);
                }
                for sought in 0..40 {
                    let sought = key(sought);
                    let mut found = Vec::new();
                    intervals.containing(&sought, &mut found);
                    found.sort_unstable();
                    let expected = all
                        .iter()
                        .filter(|((start, end), _)| *start <= sought && end.is_after(&sought));
                    let mut expected: Vec<u32> = expected.map(|(_, slot)| *slot).collect();
                    expected.sort_unstable();
                    assert_eq!(found, expected, "seed {seed}");
                }
            }
        }
    }

    #[test]
    fn stays_flat_whatever_the_order() {
        let mut intervals = Intervals::default();
        for n in 0..20_000_u32 {
            let start = Bytes::from(n.to_be_bytes().to_vec());
            let end = End::Before(Bytes::from((n + 1).to_be_bytes().to_vec()));
            intervals.insert(start, end, n);
        }
        assert!(depth(&intervals, intervals.root) < 60);
        let mut found = Vec::new();
        intervals.containing(&777_u32.to_be_bytes(), &mut found);
        assert_eq!(found, [777]);
    }
}
