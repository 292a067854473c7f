//! What must hold whatever the files contain. The fuzz target (`fuzz/`) and the short random runs in
//! `arbitrary.rs` call the same function.

use std::sync::Arc;

use quorate_raft::{
    ClusterId, Entry, GroupId, HardState, Index, NodeId, Payload, Persist, Seq, Term,
};
use quorate_wal::{Disk as _, MemoryDisk, OpenError, Options, Wal};

fn options(random: u64) -> Options {
    Options {
        segment_bytes: 16 << 10,
        first_segment_bytes: 16 << 10,
        ..Options::new(ClusterId(1), NodeId(1), random)
    }
}

/// A log of two lives and two groups, the second life not closed.
pub(crate) fn some_log() -> MemoryDisk {
    let disk = MemoryDisk::new();
    for life in 0..2 {
        let wal = Wal::open(Arc::new(disk.clone()), &options(life)).expect("a good log").wal;
        for seq in 0..4 {
            let index = life * 4 + seq + 1;
            let command = Payload::Command(vec![seq as u8; 40].into());
            let append = vec![Entry::new(Index(index), Term(1), command)];
            let hard_state = HardState { term: Term(1), ..HardState::default() };
            let persist = Persist { seq: Seq(index), hard_state, append };
            wal.write(&[(GroupId(0), &persist), (GroupId(1), &persist)]).expect("a good write");
            wal.sync().expect("a good sync");
        }
        if life == 0 {
            wal.close().expect("a good close");
        }
    }
    disk
}

/// Changes a good log as `bytes` say, six bytes for each change, and opens it. That must not
/// panic. Either it is told that something is wrong, or every entry that is reported can be read;
/// and what a start has once reported, the next one reports again.
pub(crate) fn changed_log(log: &MemoryDisk, bytes: &[u8]) -> bool {
    let disk = log.after_kill();
    let names = disk.list().expect("names");
    for change in bytes.chunks_exact(6) {
        let name = &names[change[0] as usize % names.len()];
        let mut contents = disk.contents(name).expect("contents");
        let at = usize::from(change[1]) << 8 | usize::from(change[2]);
        if contents.is_empty() {
            continue;
        }
        let at = at % contents.len();
        match change[3] % 4 {
            0 => contents[at] ^= change[4].max(1),
            1 => contents[at] = change[4],
            2 => contents.truncate(at),
            // A piece from somewhere else.
            _ => {
                let len = usize::from(change[5]).min(contents.len() - at);
                let from = (at + usize::from(change[4]) * 64) % contents.len();
                let len = len.min(contents.len() - from);
                contents.copy_within(from..from + len, at);
            }
        }
        disk.put(name, contents);
    }
    let opened = match Wal::open(Arc::new(disk.clone()), &options(7)) {
        Ok(opened) => opened,
        Err(OpenError::Io(why)) => panic!("the disk is in order: {why}"),
        Err(_) => return false,
    };
    if !opened.damage.is_empty() {
        return false;
    }
    for (id, group) in &opened.groups {
        let (first, last) = (group.snapshot.id.index.next(), group.last_index);
        if first <= last {
            let read = opened.wal.read(*id, first, last, usize::MAX).expect("undamaged entries");
            assert_eq!(read.len() as u64, last.0 + 1 - first.0);
        }
    }
    opened.wal.close().expect("a good close");
    let groups = opened.groups.clone();
    drop(opened);
    let again = Wal::open(Arc::new(disk), &options(8)).expect("it was opened before");
    assert!(again.damage.is_empty());
    assert_eq!(again.groups, groups);
    true
}
