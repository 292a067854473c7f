//! Going on far above what was, after a restore from a backup: revisions that clients have seen since the backup was made
//! shall not be given again.

use crate::{RequestError, Revision, Store};

impl Store {
    /// Raises the current revision without a change of any key. `compact`: everything below it counts as compacted, so that
    /// watches and reads at former revisions fail instead of missing what is lost. Not a command: for stores that nobody
    /// serves, the same on all replicas.
    ///
    /// # Errors
    ///
    /// [`RequestError::FutureRevision`] if there is no such revision; nothing has changed then.
    pub fn bump_revision(&mut self, by: u64, compact: bool) -> Result<Revision, RequestError> {
        let mut state = self.shared.write();
        let bumped = i64::try_from(by).ok().and_then(|by| state.revision.checked_add(by));
        let bumped = bumped.ok_or(RequestError::FutureRevision)?;
        state.revision = bumped;
        if compact && bumped > state.compacted {
            state.compact(bumped)?;
        }
        Ok(Revision(bumped))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{Command, LogPlace, Put, Range, ReadError, StoreConfig};

    #[test]
    fn keys_stay_and_history_goes() {
        let mut store = Store::in_memory(StoreConfig::default());
        let key = Bytes::from_static(b"k");
        let put = || Command::Put(Put { key: key.clone(), ..Put::default() });
        store.apply(&[put(), put()], &mut ()).unwrap()[0].as_ref().unwrap();
        store.finish(LogPlace { index: 1, term: 1 }, []);
        assert_eq!(store.bump_revision(1000, true), Ok(Revision(1003)));
        while store.compact_step(false) {}
        let reader = store.reader();
        let at = |revision| Range { key: key.clone(), revision, ..Range::default() };
        let now = reader.range(&at(Revision(0))).unwrap();
        assert_eq!((now.revision, now.kvs[0].mod_revision), (Revision(1003), Revision(3)));
        let gone = reader.range(&at(Revision(1002)));
        assert!(matches!(gone, Err(ReadError::Request(RequestError::Compacted))), "{gone:?}");
        assert_eq!(store.bump_revision(u64::MAX, true), Err(RequestError::FutureRevision));
        store.apply(&[put()], &mut ()).unwrap()[0].as_ref().unwrap();
        assert_eq!(reader.revision(), Revision(1004));
    }
}
