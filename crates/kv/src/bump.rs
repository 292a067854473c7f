//! Going on far above what was, after a restore from a backup: revisions that clients have seen since the backup was made
//! shall not be given again.

use core::fmt;

use crate::{DiskError, Revision, Store};

/// Why the revision was not raised. Nothing has changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum BumpError {
    /// There is no such revision.
    NoSuchRevision,
    /// What waits for a flush cannot be made durable, since another flush has not ended.
    Flushing,
    /// The database failed.
    Disk(DiskError),
}

impl fmt::Display for BumpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchRevision => f.write_str("there is no such revision"),
            Self::Flushing => f.write_str("a flush is under way"),
            Self::Disk(why) => why.fmt(f),
        }
    }
}

impl core::error::Error for BumpError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Disk(why) => Some(why),
            Self::NoSuchRevision | Self::Flushing => None,
        }
    }
}

impl Store {
    /// Raises the current revision without a change of any key. `compact`: everything below it counts as compacted, so that
    /// watches and reads at former revisions fail instead of missing what is lost. Not a command: for stores that nobody
    /// serves, the same on all replicas.
    ///
    /// What was applied before is flushed: only on the disk may revisions be missing.
    ///
    /// # Errors
    ///
    /// [`BumpError`]; nothing has changed then.
    pub fn bump_revision(&mut self, by: u64, compact: bool) -> Result<Revision, BumpError> {
        let bumped =
            i64::try_from(by).ok().and_then(|by| self.reader().revision().0.checked_add(by));
        let bumped = bumped.ok_or(BumpError::NoSuchRevision)?;
        if let Some(flush) = self.begin_flush() {
            flush.write().map_err(BumpError::Disk)?;
        }
        let mut state = self.shared.write();
        if state.tails.first_revision().is_some() {
            return Err(BumpError::Flushing);
        }
        state.revision = bumped;
        if compact && bumped > state.compacted {
            state.compact(bumped).map_err(|_| BumpError::NoSuchRevision)?;
        }
        Ok(Revision(bumped))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{Command, LogPlace, Put, Range, ReadError, RequestError, StoreConfig};

    #[test]
    fn keys_stay_and_history_goes() {
        let mut store = Store::in_memory(StoreConfig::default());
        let key = Bytes::from_static(b"k");
        let put = || Command::Put(Put { key: key.clone(), ..Put::default() });
        store.apply(&[put(), put()], &mut ()).unwrap()[0].as_ref().unwrap();
        store.finish(LogPlace { index: 1, term: 1 }, []);
        assert_eq!(store.bump_revision(1000, true).unwrap(), Revision(1003));
        while store.compact_step(false) {}
        let reader = store.reader();
        let at = |revision| Range { key: key.clone(), revision, ..Range::default() };
        let now = reader.range(&at(Revision(0))).unwrap();
        assert_eq!((now.revision, now.kvs[0].mod_revision), (Revision(1003), Revision(3)));
        let gone = reader.range(&at(Revision(1002)));
        assert!(matches!(gone, Err(ReadError::Request(RequestError::Compacted))), "{gone:?}");
        let why = store.bump_revision(u64::MAX, true).unwrap_err();
        assert!(matches!(why, BumpError::NoSuchRevision), "{why}");
        store.apply(&[put()], &mut ()).unwrap()[0].as_ref().unwrap();
        assert_eq!(reader.revision(), Revision(1004));
    }
}
