//! Words of a command, and what they mean.

use std::collections::VecDeque;

use quorate_raft::{Index, LogId, NodeId, Term};

/// What is wrong with a command.
pub(super) type Fault = String;

/// The words of one command that have not been understood yet.
#[derive(Clone, Debug)]
pub(super) struct Words {
    words: VecDeque<Word>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Word {
    text: String,
    /// It was quoted, so it is nothing but text.
    quoted: bool,
}

/// Cuts a line into commands at `;`, and each into words.
pub(super) fn split_commands(line: &str) -> Result<Vec<Words>, Fault> {
    let mut commands = vec![Words { words: VecDeque::new() }];
    let mut chars = line.chars().peekable();
    while let Some(&c) = chars.peek() {
        let last = commands.last_mut().ok_or("no command")?;
        match c {
            ' ' | '\t' => {
                chars.next();
            }
            ';' => {
                chars.next();
                commands.push(Words { words: VecDeque::new() });
            }
            '"' => {
                chars.next();
                let text: String = chars.by_ref().take_while(|c| *c != '"').collect();
                last.words.push_back(Word { text, quoted: true });
            }
            _ => {
                let mut text = String::new();
                while let Some(c) = chars.next_if(|c| !matches!(c, ' ' | '\t' | ';')) {
                    text.push(c);
                }
                last.words.push_back(Word { text, quoted: false });
            }
        }
    }
    commands.retain(|command| !command.words.is_empty());
    Ok(commands)
}

impl Words {
    /// The next word.
    pub(super) fn next(&mut self, what: &str) -> Result<String, Fault> {
        self.words.pop_front().map(|word| word.text).ok_or_else(|| format!("{what} is missing"))
    }

    /// The next word, if there is one.
    pub(super) fn optional(&mut self) -> Option<String> {
        self.words.pop_front().map(|word| word.text)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Whether the next word is this one; takes it if so.
    pub(super) fn accept(&mut self, word: &str) -> bool {
        let is_next = self.words.front().is_some_and(|next| !next.quoted && next.text == word);
        if is_next {
            self.words.pop_front();
        }
        is_next
    }

    /// Takes out `key=value`, wherever it stands.
    pub(super) fn option(&mut self, key: &str) -> Option<String> {
        let at = self.words.iter().position(|word| {
            !word.quoted && word.text.strip_prefix(key).is_some_and(|rest| rest.starts_with('='))
        })?;
        let word = self.words.remove(at)?;
        Some(word.text[key.len() + 1..].to_owned())
    }

    /// Takes out all `key=value`, wherever they stand.
    pub(super) fn options(&mut self) -> Vec<(String, String)> {
        let mut options = Vec::new();
        self.words.retain(|word| match word.text.split_once('=') {
            Some((key, value)) if !word.quoted => {
                options.push((key.to_owned(), value.to_owned()));
                false
            }
            _ => true,
        });
        options
    }

    /// A node, written `n1` or `1`.
    pub(super) fn node(&mut self) -> Result<NodeId, Fault> {
        node(&self.next("a node")?)
    }

    /// The nodes that follow: at least one, or any number.
    pub(super) fn nodes(&mut self) -> Result<Vec<NodeId>, Fault> {
        let mut nodes = Vec::new();
        while self.words.front().is_some_and(|word| !word.quoted && node(&word.text).is_ok()) {
            nodes.push(self.node()?);
        }
        Ok(nodes)
    }

    /// `n1 -> n2`, where `*` stands for any node.
    pub(super) fn link(&mut self) -> Result<(Option<NodeId>, Option<NodeId>), Fault> {
        let from = self.end("the sender")?;
        if !self.accept("->") {
            return Err("`->` is missing between two nodes".to_owned());
        }
        Ok((from, self.end("the receiver")?))
    }

    fn end(&mut self, what: &str) -> Result<Option<NodeId>, Fault> {
        match self.next(what)?.as_str() {
            "*" => Ok(None),
            word => node(word).map(Some),
        }
    }

    pub(super) fn number(&mut self, what: &str) -> Result<u64, Fault> {
        number(&self.next(what)?)
    }

    /// Nothing may be left.
    pub(super) fn end_of_command(&self) -> Result<(), Fault> {
        match self.words.front() {
            None => Ok(()),
            Some(word) => Err(format!("did not expect `{}`", word.text)),
        }
    }
}

pub(super) fn node(word: &str) -> Result<NodeId, Fault> {
    let digits = word.strip_prefix('n').unwrap_or(word);
    match digits.parse() {
        Ok(id) if id > 0 => Ok(NodeId(id)),
        _ => Err(format!("`{word}` is no node; write n1")),
    }
}

pub(super) fn number(word: &str) -> Result<u64, Fault> {
    if let Some(hex) = word.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).map_err(|_| format!("`{word}` is no number"));
    }
    word.parse().map_err(|_| format!("`{word}` is no number"))
}

/// `3@2`: index 3, term 2.
pub(super) fn log_id(word: &str) -> Result<LogId, Fault> {
    let wrong = || format!("`{word}` is no entry; write index@term");
    let (index, term) = word.split_once('@').ok_or_else(wrong)?;
    let index = index.parse().map_err(|_| wrong())?;
    let term = term.parse().map_err(|_| wrong())?;
    Ok(LogId::new(Index(index), Term(term)))
}

/// `150ms`, `2s`, `30us`, in microseconds.
pub(super) fn duration(word: &str) -> Result<u64, Fault> {
    let units = [("us", 1), ("ms", 1_000), ("s", 1_000_000)];
    for (unit, us) in units {
        if let Some(count) = word.strip_suffix(unit)
            && let Ok(count) = count.parse::<u64>()
        {
            return Ok(count * us);
        }
    }
    Err(format!("`{word}` is no duration; write 150ms or 2s"))
}

pub(super) fn on_off(word: &str) -> Result<bool, Fault> {
    match word {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("`{word}` is neither on nor off")),
    }
}
