//! A process that writes is killed, again and again: what it said to be durable is there, and everything fits together.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod crash_support;

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crash_support::{CONFIG, Progress, Random, check_at, contents, expected, place, run};
use quorate_kv::{Store, restore_file};

const LAST: u64 = 150;
const TASK: &str = "QUORATE_KV_KILL_TASK";
const FOLDER: &str = "QUORATE_KV_KILL_FOLDER";
const MARK: &str = "news: ";

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("quorate-kv-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Not a test by itself: what the children of the others run.
#[test]
fn child() {
    let Some(folder) = env::var_os(FOLDER).map(PathBuf::from) else { return };
    match env::var(TASK).unwrap().as_str() {
        "write" => write(&folder),
        "restore" => restore(&folder),
        "defragment" => defragment(&folder),
        other => panic!("unknown task {other}"),
    }
}

fn tell(news: u64) {
    let mut out = io::stdout().lock();
    // If nobody listens any more, then it is about to be killed.
    let _ = writeln!(out, "\n{MARK}{news}").and_then(|()| out.flush());
}

fn write(folder: &Path) {
    let (mut store, opened) = Store::open_file(&folder.join("store"), CONFIG).unwrap();
    run(&mut store, opened.applied.index, LAST, &mut Progress::default(), tell).unwrap();
}

/// Writes, and writes the file anew, again and again, at the same time.
fn defragment(folder: &Path) {
    let (mut store, opened) = Store::open_file(&folder.join("store"), CONFIG).unwrap();
    let mut from = opened.applied.index;
    while from < LAST {
        let next = (from + 10).min(LAST);
        let defragment = store.defragment().unwrap().with_step_bytes(10_000);
        std::thread::scope(|scope| {
            scope.spawn(|| defragment.run().unwrap());
            run(&mut store, from, next, &mut Progress::default(), tell).unwrap();
        });
        from = next;
    }
}

/// Restores two snapshots in turns, and tells with every piece of one that it reads.
fn restore(folder: &Path) {
    struct Telling<'a>(&'a [u8], &'a mut u64);
    impl Read for Telling<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            *self.1 += 1;
            tell(*self.1);
            self.0.read(out)
        }
    }
    let snapshots = ["one", "two"].map(|name| fs::read(folder.join(name)).unwrap());
    let mut told = 0;
    for snapshot in snapshots.iter().cycle().take(100) {
        let mut from = Telling(snapshot, &mut told);
        restore_file(&mut from, &folder.join("store"), CONFIG.cache_bytes).unwrap();
    }
}

/// A child that is killed when this is dropped, whatever happens.
struct Victim(Child);

impl Victim {
    fn start(task: &str, folder: &Path) -> Self {
        let child = Command::new(env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture"])
            .env(TASK, task)
            .env(FOLDER, folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Listens to so many news, kills it, and gives back the last one that it told.
    fn kill_after(mut self, news: u64) -> Option<u64> {
        let mut heard = (0, None);
        let mut lines = BufReader::new(self.0.stdout.take().unwrap()).lines();
        let mut listen = |until: u64| {
            while heard.0 < until {
                let Some(line) = lines.next() else { break };
                if let Some(number) = line.unwrap().strip_prefix(MARK) {
                    heard = (heard.0 + 1, Some(number.parse().unwrap()));
                }
            }
            heard.1
        };
        listen(news);
        self.0.kill().unwrap();
        self.0.wait().unwrap();
        // It may have told more before it died.
        listen(u64::MAX)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_writer_is_killed() {
    kill_again_and_again("write", "killed-writer");
}

#[test]
fn a_defragmentation_is_killed() {
    kill_again_and_again("defragment", "killed-defragmentation");
}

fn kill_again_and_again(task: &str, name: &str) {
    let expected = expected(LAST);
    let folder = Folder::new(name);
    let path = folder.0.join("store");
    let mut random = Random::new(7);
    let (mut durable, mut kills) = (0, 0);
    while durable < LAST {
        let told = Victim::start(task, &folder.0).kill_after(random.below(5));
        kills += 1;
        durable = told.unwrap_or(durable);
        let (store, opened) = Store::open_file(&path, CONFIG).unwrap();
        let found = opened.applied.index;
        assert!(found >= durable, "{durable} was durable, and {found} is there");
        check_at(&store, &opened, &expected);
        durable = found;
        assert!(kills < 1000, "it does not get on");
    }
    assert!(kills > 5, "only {kills} kills");
}

#[test]
fn a_restore_is_killed() {
    let expected = expected(LAST);
    let folder = Folder::new("killed-restore");
    let path = folder.0.join("store");
    let mut store = Store::in_memory(CONFIG);
    let ends = [60, LAST];
    let mut from = 0;
    for (name, end) in ["one", "two"].into_iter().zip(ends) {
        run(&mut store, from, end, &mut Progress::default(), |_| ()).unwrap();
        from = end;
        let mut file = fs::File::create(folder.0.join(name)).unwrap();
        store.reader().snapshot().write_to(&mut file).unwrap();
    }
    let mut random = Random::new(9);
    let mut seen = [0; 2];
    let rounds = if env::var_os("QUORATE_LONG").is_some() { 500 } else { 30 };
    for round in 0..rounds {
        Victim::start("restore", &folder.0).kill_after(random.below(60));
        if !path.exists() && seen == [0; 2] {
            // Not even the first one was finished.
            continue;
        }
        let (store, opened) = Store::open_file(&path, CONFIG).unwrap();
        let which = ends.iter().position(|end| place(*end) == opened.applied);
        let which = which.unwrap_or_else(|| panic!("round {round}: {opened:?}"));
        seen[which] += 1;
        assert!(contents(&store.reader()) == expected[ends[which] as usize]);
        assert!(!folder.0.join("store.restoring").exists());
    }
    assert!(seen[0] > 0);
    assert!(seen[1] > 0);
}
