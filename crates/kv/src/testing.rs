//! For tests: a disk in memory that fails as disks do.
//!
//! [`FaultyDisk`] holds what is on the platter and what is in the cache above it. A power cut takes away any part of what
//! was not synced, in pieces of a sector; the same seed takes the same. It needs no operating system, so that a simulation
//! can run on it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// What is written whole or not at all.
const SECTOR: usize = 512;

/// A disk for one database, which outlives those that use it. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct FaultyDisk {
    inner: Arc<Mutex<Inner>>,
}

/// What happens to one of the disk's operations, counted from 0 over writes, changes of the length and syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power goes before it. Everything fails from here on, until [`FaultyDisk::power_on`].
    PowerCut,
    /// It fails. If it is a sync, then a part of what was not synced never gets to the platter, though it can be read.
    Failure,
}

#[derive(Debug, Default)]
struct Inner {
    platter: Vec<u8>,
    /// What those who read see.
    cached: Vec<u8>,
    unsynced: Vec<Change>,
    operations: u64,
    fault: Option<(u64, Fault)>,
    bytes_max: Option<u64>,
    is_off: bool,
    /// Those of earlier lives may not touch it any more.
    life: u64,
    random: u64,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    Length(usize),
}

impl FaultyDisk {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// For a database; any earlier one that is still around finds nothing but errors from here on, as after a kill.
    #[must_use]
    pub fn backend(&self) -> FaultyBackend {
        let mut inner = self.lock();
        inner.life += 1;
        FaultyBackend { disk: self.clone(), life: inner.life }
    }

    /// Plans a fault. There is at most one.
    pub fn plan(&self, operation: u64, fault: Fault) {
        self.lock().fault = Some((operation, fault));
    }

    /// Beyond this many bytes the disk is full. `None`: it never is.
    pub fn limit(&self, bytes_max: Option<u64>) {
        self.lock().bytes_max = bytes_max;
    }

    /// How many operations there were.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Whether the power is off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.lock().is_off
    }

    /// The power goes now, if it has not gone yet, and comes back. Of what was not synced is left: everything (seed 0),
    /// nothing (seed 1), or what the seed decides.
    pub fn power_on(&self, seed: u64) {
        let mut inner = self.lock();
        inner.random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        inner.settle(match seed {
            0 => Some(true),
            1 => Some(false),
            _ => None,
        });
        inner.cached = inner.platter.clone();
        inner.fault = None;
        inner.is_off = false;
        inner.life += 1;
    }

    /// Flips a bit on the platter.
    pub fn rot(&self, offset: u64, bit: u8) {
        let mut inner = self.lock();
        let Ok(offset) = usize::try_from(offset) else { return };
        let Inner { platter, cached, .. } = &mut *inner;
        for bytes in [platter, cached] {
            if let Some(byte) = bytes.get_mut(offset) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// Its size now.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.lock().cached.len() as u64
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Brings to the platter all of what was not synced, nothing, or by chance.
    fn settle(&mut self, kept: Option<bool>) {
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Change::Length(length) => {
                    if kept.unwrap_or_else(|| self.coin()) {
                        self.platter.resize(length, 0);
                    }
                }
                Change::Write { offset, data } => {
                    // Whole, gone, or torn between sectors.
                    let fate = match kept {
                        Some(kept) => u64::from(kept),
                        None => self.random() % 4,
                    };
                    let mut at = 0;
                    while at < data.len() {
                        let end = ((offset + at) / SECTOR + 1) * SECTOR - offset;
                        let piece = &data[at..end.min(data.len())];
                        let is_kept = match fate {
                            0 => false,
                            1 => true,
                            _ => self.coin(),
                        };
                        if is_kept {
                            overwrite(&mut self.platter, offset + at, piece);
                        }
                        at += piece.len();
                    }
                }
            }
        }
    }

    /// xorshift64*: no more is needed.
    fn random(&mut self) -> u64 {
        self.random |= u64::from(self.random == 0);
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn coin(&mut self) -> bool {
        self.random() & 1 == 0
    }

    /// One operation that changes something. `Err` if it does not happen.
    fn operate(&mut self, life: u64) -> io::Result<()> {
        self.usable(life)?;
        let now = self.operations;
        self.operations += 1;
        match self.fault {
            Some((at, Fault::PowerCut)) if at == now => {
                self.is_off = true;
                Err(io::Error::other("the power is off"))
            }
            Some((at, Fault::Failure)) if at == now => Err(io::Error::other("the disk failed")),
            _ => Ok(()),
        }
    }

    fn usable(&self, life: u64) -> io::Result<()> {
        match () {
            () if self.is_off => Err(io::Error::other("the power is off")),
            () if life != self.life => Err(io::Error::other("the process is gone")),
            () => Ok(()),
        }
    }

    fn fits(&self, end: u64) -> io::Result<usize> {
        if self.bytes_max.is_some_and(|max| end > max && end > self.cached.len() as u64) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        usize::try_from(end).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))
    }
}

fn overwrite(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

/// How a database sees a [`FaultyDisk`].
#[derive(Debug)]
pub struct FaultyBackend {
    disk: FaultyDisk,
    life: u64,
}

impl StorageBackend for FaultyBackend {
    fn len(&self) -> Result<u64, io::Error> {
        let inner = self.disk.lock();
        inner.usable(self.life)?;
        Ok(inner.cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let inner = self.disk.lock();
        inner.usable(self.life)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.checked_add(out.len());
        let bytes = end.and_then(|end| inner.cached.get(start..end));
        let bytes = bytes.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let mut inner = self.disk.lock();
        inner.operate(self.life)?;
        let length = inner.fits(len)?;
        inner.cached.resize(length, 0);
        inner.unsynced.push(Change::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut inner = self.disk.lock();
        if let Err(why) = inner.operate(self.life) {
            if !inner.is_off && inner.usable(self.life).is_ok() {
                inner.settle(None);
            }
            return Err(why);
        }
        inner.settle(Some(true));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut inner = self.disk.lock();
        inner.operate(self.life)?;
        let end = inner.fits(offset.saturating_add(data.len() as u64))?;
        let offset = end - data.len();
        overwrite(&mut inner.cached, offset, data);
        inner.unsynced.push(Change::Write { offset, data: data.to_vec() });
        Ok(())
    }
}
