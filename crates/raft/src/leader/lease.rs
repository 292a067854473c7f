//! Reads by lease (thesis 6.4.1): no voter elects another leader for a while after it answered
//! this one, so for that while the leader need not ask again. Off by default, because it trusts
//! clocks not to drift by more than a bound.

use super::Leader;
use crate::common::Common;
use crate::error::NoLease;
use crate::types::Time;

impl Leader {
    /// Whether the lease is held now.
    ///
    /// It runs from the *sending* of a round that a quorum has answered, for the duration that the
    /// configuration states, less what the clocks may drift apart in that time. An answer counts
    /// only from a peer whose disk holds the configuration that states it, and whose clock was not
    /// seen to drift: such a peer grants no vote that long, even after a restart.
    pub(crate) fn lease(&self, common: &Common) -> Result<(), NoLease> {
        let Some(lease_us) = common.membership().lease_us() else { return Err(NoLease::Off) };
        if self.sent_timeout_now {
            return Err(NoLease::Transferred);
        }
        if !self.is_ready(common) || common.configurations.lease_since() > common.commit_index {
            return Err(NoLease::NotCommitted);
        }
        let since = self.lease_since(common).unwrap_or_default();
        let drift_ppm = u64::from(common.config.clock_drift_max_ppm);
        // Our clock may be slow and theirs fast: both errors shorten the lease.
        let margin_us = lease_us.saturating_mul(2 * drift_ppm) / 1_000_000;
        if common.now < since.after(lease_us.saturating_sub(margin_us)) {
            return Ok(());
        }
        let drifts = self.progress.values().any(|progress| progress.drift.is_exceeded());
        Err(if drifts { NoLease::Drift } else { NoLease::Expired })
    }

    /// The latest time since which a quorum is known to follow this leader.
    fn lease_since(&self, common: &Common) -> Option<Time> {
        let node = common.node();
        common.membership().quorum_value(|voter| {
            if voter == node {
                return Some(common.now);
            }
            let progress = self.progress.get(&voter)?;
            if progress.drift.is_exceeded() {
                return None;
            }
            progress.lease_acked_at
        })?
    }
}
