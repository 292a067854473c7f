//! What came out, for people.

use std::fmt;

use super::{Outcome, Trial, seeds_to};

/// Wider cells are cut.
const WIDTH_MAX: usize = 72;

/// One line a mutant, and a last one with the sum.
pub(super) struct Table<'a>(pub(super) &'a [Trial]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["mutant", "rule", "caught by", "seeds", "simulated", "wall"];
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(self.0.iter().map(row));
        let widths: [usize; 6] = std::array::from_fn(|column| {
            rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
        });
        for (number, row) in rows.iter().enumerate() {
            for (column, cell) in row.iter().enumerate() {
                let (width, separator) = (widths[column], if column == 0 { "" } else { " | " });
                match column {
                    0..=2 => write!(f, "{separator}{cell:<width$}")?,
                    _ => write!(f, "{separator}{cell:>width$}")?,
                }
            }
            writeln!(f)?;
            if number == 0 {
                let rule = widths.map(|width| "-".repeat(width)).join("-|-");
                writeln!(f, "{rule}")?;
            }
        }
        let caught = self.0.iter().filter(|trial| trial.is_caught()).count();
        write!(f, "{caught} of {} mutants caught", self.0.len())
    }
}

fn row(trial: &Trial) -> [String; 6] {
    let none = || (String::new(), String::new());
    let (by, (seeds, simulated)) = match &trial.outcome {
        Outcome::Caught(objections) => {
            let by: Vec<&str> = objections.iter().map(|objection| objection.by.as_str()).collect();
            let seeds = objections.iter().find_map(|objection| {
                let seeds = seeds_to(objection.seed)?;
                Some((seeds.to_string(), duration(objection.simulated_us)))
            });
            (by.join(" | "), seeds.unwrap_or_else(none))
        }
        Outcome::Survived(judge) => (format!("SURVIVED {judge}"), none()),
        Outcome::Hung => ("HANGS".to_owned(), none()),
    };
    let wall = duration(u64::try_from(trial.wall.as_micros()).unwrap_or(u64::MAX));
    [trial.name.clone(), cut(&trial.rule), cut(&by), seeds, simulated, wall]
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(WIDTH_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// Microseconds in a unit that suits them.
pub(super) fn duration(us: u64) -> String {
    let seconds = us as f64 / 1e6;
    match us {
        ..10_000_000 => format!("{seconds:.1} s"),
        10_000_000..600_000_000 => format!("{seconds:.0} s"),
        600_000_000..36_000_000_000 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.0} h", seconds / 3600.0),
    }
}
