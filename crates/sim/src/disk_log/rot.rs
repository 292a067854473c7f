//! Damage to what is durable, and known to be.

use std::collections::BTreeMap;

use quorate_wal::Disk as _;

use super::DiskLog;
use crate::rng::Rng;

const SECTOR: usize = 512;
/// Tries to find a place that may be damaged.
const TRIES: usize = 16;

impl DiskLog {
    /// Changes durable bytes behind the log's back. False if there is no such byte that a log could
    /// be expected to miss: right after a sync, nothing on the disk says yet that it succeeded.
    pub(super) fn rot(&mut self) -> bool {
        // While a sync runs, another one would wait for it.
        let Some(wal) = self.wal.clone().filter(|_| self.job.is_none()) else { return false };
        let Ok(completed) = wal.mark() else { return false };
        self.note_reported(&completed);
        let before = self.contents();
        // Two more records, so that even the mark is covered by a mark.
        for _ in 0..2 {
            let extra = self.neighbours.next_of_first();
            let records: Vec<_> = extra.iter().map(|(group, persist)| (*group, persist)).collect();
            if wal.write(&records).is_err() {
                return false;
            }
            self.neighbours.written(&extra);
            let Ok(completed) = wal.sync() else { return false };
            self.note_reported(&completed);
        }
        let now = self.contents();
        let mut rng = self.rng.fork();
        for _ in 0..TRIES {
            if let Some((name, at, bytes)) = draw(&mut rng, &before, &now) {
                self.rotten = true;
                self.disk.damage(&name, at as u64, |place| {
                    let len = place.len().min(bytes.len());
                    place[..len].copy_from_slice(&bytes[..len]);
                });
                return true;
            }
        }
        false
    }

    fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let names = self.disk.list().unwrap_or_default();
        let contents = |name: String| Some((name.clone(), self.disk.contents(&name)?));
        names.into_iter().filter_map(contents).collect()
    }
}

/// Draws a place and what stands there from now on: a byte with a flipped bit, a sector of zeros, or
/// one that was meant for another place. `before` is what the marks cover.
fn draw(
    rng: &mut Rng,
    before: &BTreeMap<String, Vec<u8>>,
    now: &BTreeMap<String, Vec<u8>>,
) -> Option<(String, usize, Vec<u8>)> {
    let names: Vec<&String> = before.keys().collect();
    let name = *rng.pick(&names)?;
    let (old, new) = (&before[name], now.get(name)?);
    // Where there is something, mostly.
    let used = new.iter().rposition(|byte| *byte != 0)? as u64 + 1;
    let at = rng.below(used) as usize;
    let sector = at / SECTOR * SECTOR;
    let end = (sector + SECTOR).min(new.len());
    let (at, bytes) = match rng.below(4) {
        0 => (sector, vec![0; end - sector]),
        1 => {
            let source = now.get(*rng.pick(&names)?)?;
            let from = rng.below(source.len() as u64 / SECTOR as u64 + 1) as usize * SECTOR;
            let len = source.len().saturating_sub(from).min(end - sector);
            (sector, source[from..from + len].to_vec())
        }
        _ => (at, vec![new[at] ^ 1 << rng.below(8)]),
    };
    let range = at..at + bytes.len();
    let is_covered = old.get(range.clone()) == new.get(range.clone());
    let changes = new.get(range) != Some(&bytes[..]);
    (is_covered && changes).then(|| (name.clone(), at, bytes))
}
