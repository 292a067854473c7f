//! Where two texts differ, line by line.

use std::fmt::Write as _;

/// Lines around a difference that are shown.
const CONTEXT: usize = 3;

/// A readable account of what differs, with `-` before lines of `expected` and `+` before those of
/// `found`; empty if nothing does.
#[must_use]
pub fn diff(expected: &str, found: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    // Longest common subsequence; scripts are short.
    let mut common = vec![vec![0u32; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = if old[i] == new[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let mut edits: Vec<(char, &str)> = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            edits.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            edits.push(('-', old[i]));
            i += 1;
        } else {
            edits.push(('+', new[j]));
            j += 1;
        }
    }
    let mut text = String::new();
    let mut skipped = false;
    for (at, (mark, line)) in edits.iter().enumerate() {
        let around = &edits[at.saturating_sub(CONTEXT)..(at + CONTEXT + 1).min(edits.len())];
        if around.iter().any(|(mark, _)| *mark != ' ') {
            if std::mem::take(&mut skipped) && !text.is_empty() {
                text.push_str("  ...\n");
            }
            let _ = writeln!(text, "{mark} {line}");
        } else {
            skipped = true;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_do_not_differ() {
        assert_eq!(diff("a\nb\n", "a\nb\n"), "");
    }

    #[test]
    fn only_the_neighbourhood_of_a_difference_is_shown() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n";
        let new = "1\n2\n3\n4\n5\nsix\n7\n8\n";
        assert_eq!(diff(old, new), "  3\n  4\n  5\n- 6\n+ six\n  7\n  8\n");
    }
}
