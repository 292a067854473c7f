//! Golden scripts: blocks of commands, `---`, and what they printed.

#[allow(dead_code, reason = "leases need no store")]
pub(crate) mod store;
#[allow(dead_code, reason = "scripts print what they hear")]
pub(crate) mod witness;

use std::path::Path;
use std::{env, fs};

/// Runs every script of a folder with an interpreter of its own each. `UPDATE_SCRIPTS=1` writes what they print.
#[allow(dead_code, reason = "random tests have no scripts")]
pub(crate) fn run_scripts<I>(
    folder: &str,
    new: impl Fn() -> I,
    run: impl Fn(&mut I, &str) -> String,
) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(folder);
    let update = env::var("UPDATE_SCRIPTS").is_ok_and(|value| value == "1");
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .expect("a folder")
        .map(|entry| entry.expect("a file").path())
        .collect();
    paths.sort();
    let mut wrong = Vec::new();
    for path in &paths {
        let text = fs::read_to_string(path).expect("a script");
        let mut interpreter = new();
        let printed = play(&text, |command| run(&mut interpreter, command));
        if update && printed != text {
            fs::write(path, &printed).expect("the script is written");
        } else if printed != text {
            wrong.push(format!("{}:\n{}", path.display(), difference(&text, &printed)));
        }
    }
    assert!(!paths.is_empty(), "no scripts in {}", folder.display());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[allow(dead_code, reason = "random tests have no scripts")]
fn play(text: &str, mut run: impl FnMut(&str) -> String) -> String {
    let mut blocks = Vec::new();
    for block in text.trim_end().split("\n\n") {
        let commands: Vec<&str> = block.lines().take_while(|line| *line != "---").collect();
        let mut output = String::new();
        let mut any = false;
        for line in commands.iter().filter(|line| !line.starts_with('#')) {
            any = true;
            for command in line.split(';') {
                output += &run(command.trim());
            }
        }
        let mut block = commands.join("\n");
        if any {
            block += "\n---\n";
            block += if output.is_empty() { "ok" } else { output.trim_end() };
        }
        blocks.push(block);
    }
    blocks.join("\n\n") + "\n"
}

#[allow(dead_code, reason = "random tests have no scripts")]
fn difference(expected: &str, printed: &str) -> String {
    let mut lines = expected.lines().zip(printed.lines()).enumerate();
    match lines.find(|(_, (expected, printed))| expected != printed) {
        Some((at, (expected, printed))) => {
            format!("line {}: expected `{expected}`, printed `{printed}`", at + 1)
        }
        None => "one ends before the other".to_owned(),
    }
}

/// The splitmix generator.
#[allow(dead_code, reason = "the scripts need no chance")]
pub(crate) struct Random(pub(crate) u64);

#[allow(dead_code, reason = "the scripts need no chance")]
impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    pub(crate) fn one_in(&mut self, end: u64) -> bool {
        self.below(end) == 0
    }
}
