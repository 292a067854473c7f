//! Colours, and what moves: on a terminal only.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use clap::ValueEnum;

/// When colours are used.
#[derive(ValueEnum, Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) enum Colour {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Whether the standard output is read by somebody who looks, rather than by a program.
pub(crate) fn is_for_people() -> bool {
    match CHOICE.get().copied().unwrap_or_default() {
        Colour::Always => true,
        Colour::Auto | Colour::Never => io::stdout().is_terminal(),
    }
}

/// The same of the standard error output.
pub(crate) fn is_watched() -> bool {
    CHOICE.get() == Some(&Colour::Always) || io::stderr().is_terminal()
}

/// What was chosen, for both outputs of the process.
static CHOICE: OnceLock<Colour> = OnceLock::new();

impl Colour {
    /// Makes this the choice of the process. Whoever is first decides.
    pub(crate) fn choose(self) {
        let _ = CHOICE.set(self);
    }

    /// What a command line says before it is read as a whole, so that complaints about it have their colours too.
    pub(crate) fn of_arguments(arguments: &[String]) -> Self {
        let mut rest = arguments.iter();
        let mut found = Self::default();
        while let Some(argument) = rest.next() {
            let value = match argument.strip_prefix("--color") {
                Some("") => rest.next().map(String::as_str),
                Some(value) => value.strip_prefix('='),
                None => continue,
            };
            found = value.and_then(|value| Self::from_str(value, true).ok()).unwrap_or(found);
        }
        found
    }

    /// The same to the parser of arguments.
    pub(crate) fn for_clap(self) -> clap::ColorChoice {
        match self {
            Self::Auto => clap::ColorChoice::Auto,
            Self::Always => clap::ColorChoice::Always,
            Self::Never => clap::ColorChoice::Never,
        }
    }
}

fn is_plain_wish() -> bool {
    let says = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    says("NO_COLOR").is_some() || says("TERM").is_some_and(|term| term == "dumb")
}

fn is_coloured(output: &impl IsTerminal) -> bool {
    match CHOICE.get().copied().unwrap_or_default() {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto => output.is_terminal() && !is_plain_wish(),
    }
}

/// What a piece of text says besides its words.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) enum Paint {
    /// Nothing.
    #[default]
    Plain,
    /// The head of a table.
    Head,
    /// As it should be.
    Good,
    /// Worth a look.
    Odd,
    /// Wrong.
    Bad,
    /// Of less interest than the rest.
    Faint,
    /// What stands out.
    Strong,
}

impl Paint {
    /// The text between the sequences that switch the colour on and off, if `on`.
    fn apply(self, text: &str, on: bool) -> String {
        let code = match self {
            _ if text.is_empty() => return String::new(),
            Self::Plain => return text.to_owned(),
            Self::Head => "1;4",
            Self::Good => "32",
            Self::Odd => "33",
            Self::Bad => "1;31",
            Self::Faint => "2",
            Self::Strong => "1",
        };
        if on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// The text as the standard output is to have it.
    pub(crate) fn out(self, text: &str) -> String {
        self.apply(text, is_coloured(&io::stdout()))
    }

    /// The text as the standard error output is to have it.
    pub(crate) fn err(self, text: &str) -> String {
        self.apply(text, is_coloured(&io::stderr()))
    }
}

/// A line that shows how far something is, and goes when it is done. Only on a terminal: logs and pipes get none of it.
pub(crate) struct Bar {
    what: &'static str,
    total: Option<u64>,
    /// How an amount is written.
    write: fn(u64) -> String,
    done: u64,
    began: Instant,
    shown: Option<Instant>,
    is_visible: bool,
}

/// Columns of the bar itself.
const BAR_WIDTH: u64 = 24;

/// How often it is drawn at most.
const FRAME: Duration = Duration::from_millis(100);

/// What is done sooner than this has no bar.
const QUICK: Duration = Duration::from_millis(300);

impl Bar {
    /// Begins at nothing. Without a total, only the amount is shown.
    pub(crate) fn new(what: &'static str, total: Option<u64>, write: fn(u64) -> String) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let is_visible = io::stderr().is_terminal() && !dumb;
        Self { what, total, write, done: 0, began: Instant::now(), shown: None, is_visible }
    }

    /// Whether anybody can see it.
    pub(crate) fn is_visible(&self) -> bool {
        self.is_visible
    }

    /// So much more is done.
    pub(crate) fn add(&mut self, amount: u64) {
        self.set(self.done.saturating_add(amount));
    }

    /// So much is done.
    pub(crate) fn set(&mut self, done: u64) {
        self.done = done;
        if !self.is_visible {
            return;
        }
        let now = Instant::now();
        let last = self.shown.map_or(self.began + QUICK, |shown| shown + FRAME);
        if now >= last {
            self.shown = Some(now);
            let line = self.line(now.duration_since(self.began));
            let mut stderr = io::stderr().lock();
            // A terminal that has gone away needs no bar.
            let _ = write!(stderr, "\r\x1b[K{line}").and_then(|()| stderr.flush());
        }
    }

    fn line(&self, took: Duration) -> String {
        let seconds = took.as_secs_f64().max(1e-3);
        let rate = (self.done as f64 / seconds) as u64;
        let amount = (self.write)(self.done);
        match self.total.filter(|total| *total > 0) {
            Some(total) => {
                let done = self.done.min(total);
                let share = |of: u64| u128::from(done) * u128::from(of) / u128::from(total);
                let full = "#".repeat(share(BAR_WIDTH) as usize);
                format!(
                    "{} [{full:<width$}] {:>3} %  {amount} of {}",
                    self.what,
                    share(100),
                    (self.write)(total),
                    width = BAR_WIDTH as usize,
                )
            }
            None => format!("{} {amount}, {} a second", self.what, (self.write)(rate)),
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.shown.is_some() {
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[K").and_then(|()| stderr.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paint_is_left_off_where_it_does_not_belong() {
        assert_eq!(Paint::Good.apply("ok", true), "\x1b[32mok\x1b[0m");
        assert_eq!(Paint::Good.apply("ok", false), "ok");
        assert_eq!(Paint::Plain.apply("ok", true), "ok");
    }

    #[test]
    fn arguments_say_the_colour_before_they_are_understood() {
        let of = |line: &str| {
            Colour::of_arguments(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
        };
        assert_eq!(of("get --color=never x"), Colour::Never);
        assert_eq!(of("get --color always --bad"), Colour::Always);
        assert_eq!(of("get --color"), Colour::Auto);
        assert_eq!(of("get --color=green"), Colour::Auto);
    }

    #[test]
    fn a_bar_shows_how_far_it_is() {
        let mut bar = Bar::new("reading", Some(200), |amount| format!("{amount} keys"));
        bar.set(50);
        assert_eq!(
            bar.line(Duration::from_secs(1)),
            format!("reading [{:<24}]  25 %  50 keys of 200 keys", "######")
        );
        bar.total = None;
        assert_eq!(bar.line(Duration::from_secs(2)), "reading 50 keys, 25 keys a second");
    }
}
