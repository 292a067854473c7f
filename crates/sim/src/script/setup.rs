//! `cluster` and `set`: what a cluster is made of.

use quorate_node::{Settings, SnapshotPolicy};
use quorate_raft::Config;

use super::arguments::{Fault, Words, duration, number, on_off};
use crate::cluster::{Cluster, Options};
use crate::network::Delay;

/// `cluster 3 learners=1 pre_vote=off election=150ms..300ms ...`
pub(super) fn cluster(words: &mut Words) -> Result<Cluster, Fault> {
    let voters = words.number("the number of voters")?;
    let mut options = Options::manual(voters);
    // Only `run` lets messages travel by themselves; one delay for all keeps its output short.
    options.link.delay = Delay::between(1_000, 1_000);
    options.link.reorder = false;
    // A notice of every new commit index at once: a script has no other way to see it.
    options.config.commit_notice_delay_us = 0;
    options.settings.compact_entries = 0;
    for (key, value) in words.options() {
        match key.as_str() {
            "learners" => options.learners = number(&value)?,
            "lease" => options.lease_us = Some(duration(&value)?),
            "features" => options.feature_level = number_u32(&value)?,
            "seed" => options.seed = number(&value)?,
            "bound" => options.bound = on_off(&value)?,
            _ => {
                let known = config(&mut options.config, &key, &value)?
                    || settings(&mut options.settings, &key, &value)?;
                if !known {
                    return Err(format!("unknown option `{key}`"));
                }
            }
        }
    }
    words.end_of_command()?;
    options.config.validate().map_err(|error| error.to_string())?;
    Ok(Cluster::new(options))
}

/// Changes one setting of a core. False if there is none of that name.
pub(super) fn config(config: &mut Config, key: &str, value: &str) -> Result<bool, Fault> {
    match key {
        "election" => {
            let (min, max) = value.split_once("..").unwrap_or((value, value));
            config.election_timeout_max_us = duration(max)?;
            config.election_timeout_min_us =
                duration(min).or_else(|_| duration(&format!("{min}{}", unit(max))))?;
        }
        "heartbeat" => config.heartbeat_interval_us = duration(value)?,
        "pre_vote" => config.pre_vote = on_off(value)?,
        "check_quorum" => config.check_quorum = on_off(value)?,
        "stickiness" => config.leader_stickiness = on_off(value)?,
        "peer_closed_delay" => config.peer_closed_delay_us = duration(value)?,
        "drift_max" => config.clock_drift_max_ppm = number_u32(value)?,
        "disk_stall" => config.disk_stall_timeout_us = duration(value)?,
        "commit_notice" => config.commit_notice_delay_us = duration(value)?,
        "supports" => config.feature_level = number_u32(value)?,
        "entry_bytes" => config.entry_bytes_max = size(value)?,
        "append_bytes" => config.append_bytes_max = size(value)?,
        "inflight_messages" => config.inflight_messages_max = size(value)?,
        "inflight_bytes" => config.inflight_bytes_max = size(value)?,
        "unapplied_bytes" => config.unapplied_bytes_max = size(value)?,
        "tail_bytes" => config.tail_bytes_max = size(value)?,
        "apply_bytes" => config.apply_bytes_max = size(value)?,
        "reads" => config.reads_max = size(value)?,
        "promote_lag" => config.promote_lag_max = number(value)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn settings(settings: &mut Settings, key: &str, value: &str) -> Result<bool, Fault> {
    match key {
        "forward" => settings.forward = on_off(value)?,
        "forward_timeout" => settings.forward_timeout_us = duration(value)?,
        "forwarded" => settings.forwarded_max = size(value)?,
        "outcome_wait" => settings.outcome_wait_us = duration(value)?,
        "read_wait" => settings.read_wait_us = duration(value)?,
        "waiting_reads" => settings.reads_max = size(value)?,
        "compact_entries" => settings.compact_entries = number(value)?,
        "keep_entries" => settings.keep_entries = number(value)?,
        "keep_for_followers" => settings.keep_for_followers = number(value)?,
        "snapshot_entries" => {
            let entries = number(value)?;
            settings.snapshots = Some(SnapshotPolicy { entries, bytes: u64::MAX });
        }
        "keep_for_transfer" => settings.keep_for_transfer = number(value)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn unit(duration: &str) -> &str {
    duration.trim_start_matches(|c: char| c.is_ascii_digit())
}

fn size(word: &str) -> Result<usize, Fault> {
    usize::try_from(number(word)?).map_err(|_| format!("`{word}` is too large"))
}

fn number_u32(word: &str) -> Result<u32, Fault> {
    u32::try_from(number(word)?).map_err(|_| format!("`{word}` is too large"))
}
