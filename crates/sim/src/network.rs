//! The network between hosts: what it does to one message.

use std::collections::BTreeMap;

use quorate_raft::{NodeId, Time};

use crate::rng::Rng;

/// How long something takes: usually between `min_us` and `max_us`, evenly spread, and sometimes
/// much longer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Delay {
    /// Shortest.
    pub min_us: u64,
    /// Longest, apart from outliers.
    pub max_us: u64,
    /// How often it is an outlier, in parts per million.
    pub outlier_ppm: u32,
    /// The longest outlier; they spread evenly between `max_us` and this.
    pub outlier_us: u64,
}

impl Delay {
    /// No time at all.
    pub const NONE: Self = Self::between(0, 0);

    /// Evenly spread, without outliers.
    #[must_use]
    pub const fn between(min_us: u64, max_us: u64) -> Self {
        Self { min_us, max_us, outlier_ppm: 0, outlier_us: 0 }
    }

    /// Draws one.
    pub fn draw(&self, rng: &mut Rng) -> u64 {
        if self.outlier_ppm > 0 && rng.chance(self.outlier_ppm) {
            return rng.between(self.max_us, self.outlier_us);
        }
        if self.max_us <= self.min_us {
            return self.min_us;
        }
        rng.between(self.min_us, self.max_us)
    }
}

/// How one direction of a link behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkOptions {
    /// One-way delay.
    pub delay: Delay,
    /// Messages lost, in parts per million.
    pub loss_ppm: u32,
    /// Messages delivered twice, in parts per million.
    pub duplicate_ppm: u32,
    /// Whether a message may overtake an earlier one (as on separate connections) or not (as on
    /// one).
    pub reorder: bool,
}

/// One direction of a link.
#[derive(Clone, Debug, Default)]
struct Link {
    options: Option<LinkOptions>,
    cut: bool,
    /// Until then, messages wait.
    clogged_until: Time,
    /// Arrival of the last message sent, for links that keep the order.
    last_arrival: Time,
}

/// All links. A link without settings of its own has the default ones.
#[derive(Clone, Debug)]
pub struct Network {
    defaults: LinkOptions,
    links: BTreeMap<(NodeId, NodeId), Link>,
}

impl Network {
    pub(crate) fn new(defaults: LinkOptions) -> Self {
        Self { defaults, links: BTreeMap::new() }
    }

    fn link(&mut self, from: NodeId, to: NodeId) -> &mut Link {
        self.links.entry((from, to)).or_default()
    }

    /// How links behave that were not given settings of their own.
    pub fn set_defaults(&mut self, options: LinkOptions) {
        self.defaults = options;
    }

    /// How links behave that were not given settings of their own.
    #[must_use]
    pub const fn defaults(&self) -> LinkOptions {
        self.defaults
    }

    /// Gives one direction of a link settings of its own, or (`None`) the default ones again.
    pub fn set_link(&mut self, from: NodeId, to: NodeId, options: Option<LinkOptions>) {
        self.link(from, to).options = options;
    }

    /// Cuts one direction: what is sent is lost, and so is what is under way.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.link(from, to).cut = true;
    }

    /// Restores one direction.
    pub fn restore(&mut self, from: NodeId, to: NodeId) {
        self.link(from, to).cut = false;
    }

    /// Whether the direction is cut.
    #[must_use]
    pub fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.links.get(&(from, to)).is_some_and(|link| link.cut)
    }

    /// Cuts every link between nodes of different groups, and restores those within one. Nodes
    /// that are in no group are cut off from everyone.
    pub fn partition(&mut self, nodes: &[NodeId], groups: &[Vec<NodeId>]) {
        let group = |node: &NodeId| groups.iter().position(|group| group.contains(node));
        for from in nodes {
            for to in nodes.iter().filter(|to| *to != from) {
                let together = group(from).is_some() && group(from) == group(to);
                self.link(*from, *to).cut = !together;
            }
        }
    }

    /// Holds messages of one direction back until `until`: a delay spike.
    pub fn clog(&mut self, from: NodeId, to: NodeId, until: Time) {
        self.link(from, to).clogged_until = until;
    }

    /// Restores every link and unclogs it. Settings stay.
    pub fn heal(&mut self) {
        for link in self.links.values_mut() {
            link.cut = false;
            link.clogged_until = Time(0);
        }
    }

    /// When a message sent at `now` arrives: never, once or twice.
    pub(crate) fn arrivals(
        &mut self,
        rng: &mut Rng,
        now: Time,
        from: NodeId,
        to: NodeId,
    ) -> [Option<Time>; 2] {
        let defaults = self.defaults;
        let link = self.link(from, to);
        let options = link.options.unwrap_or(defaults);
        if link.cut || rng.chance(options.loss_ppm) {
            return [None, None];
        }
        let copies = if rng.chance(options.duplicate_ppm) { 2 } else { 1 };
        let mut arrivals = [None, None];
        for arrival in &mut arrivals[..copies] {
            let mut at = now.max(link.clogged_until).after(options.delay.draw(rng));
            if !options.reorder {
                at = at.max(link.last_arrival);
            }
            link.last_arrival = link.last_arrival.max(at);
            *arrival = Some(at);
        }
        arrivals
    }
}
