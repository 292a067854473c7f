//! What the disk can do: writing the same bytes into a file of zeros and waiting for them.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Mutex;

use crate::ENTRY_BYTES;
use crate::measure::Log;

const FILE_BYTES: u64 = 64 << 20;

/// One file per writer, written from its start to its end and over again.
pub(crate) struct Bare {
    files: Vec<Mutex<(File, u64, Vec<u8>)>>,
}

impl Bare {
    pub(crate) fn new(dir: &Path, writers: usize) -> Self {
        let file = |writer: usize| {
            let path = dir.join(format!("bare-{writer}"));
            let mut options = OpenOptions::new();
            let options = options.create(true).truncate(true).write(true);
            let file = options.open(path).expect("a file");
            let zeros = vec![0; 1 << 20];
            for at in (0..FILE_BYTES).step_by(zeros.len()) {
                file.write_all_at(&zeros, at).expect("zeros");
            }
            file.sync_all().expect("a sync");
            Mutex::new((file, 0, Vec::new()))
        };
        Self { files: (0..writers).map(file).collect() }
    }
}

impl Log for Bare {
    fn append(&self, writer: usize, first_index: u64, count: usize) {
        let (file, offset, buffer) = &mut *self.files[writer].lock().expect("the file");
        // As many bytes as a record of the log has: headers, heads, payloads.
        let len = (104 + 25 * count + ENTRY_BYTES * count).next_multiple_of(8);
        buffer.resize(len, first_index as u8);
        if *offset + len as u64 > FILE_BYTES {
            *offset = 0;
        }
        file.write_all_at(buffer, *offset).expect("a write");
        file.sync_data().expect("a sync");
        *offset += len as u64;
    }
}
