//! A set of operation numbers, compact where it is dense from the start.

/// A bit set whose leading full words are only counted.
///
/// A search linearizes operations roughly in the order of their invocation, so the set is a long
/// full prefix with a few members and gaps behind it, and its size is that of the ragged end.
/// The representation is canonical (the first word is not full, the last one is not empty), so that
/// equal sets compare equal.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OpSet {
    full_words: usize,
    words: Vec<u64>,
}

const WORD_BITS: usize = u64::BITS as usize;

impl OpSet {
    /// All numbers below `len`.
    pub(super) fn prefix(len: usize) -> Self {
        let mut words = Vec::new();
        if !len.is_multiple_of(WORD_BITS) {
            words.push((1 << (len % WORD_BITS)) - 1);
        }
        Self { full_words: len / WORD_BITS, words }
    }

    pub(super) fn contains(&self, index: usize) -> bool {
        self.word(index / WORD_BITS) & (1 << (index % WORD_BITS)) != 0
    }

    /// This set with `index` added.
    pub(super) fn with(&self, index: usize) -> Self {
        let mut set = self.clone();
        let Some(word) = (index / WORD_BITS).checked_sub(set.full_words) else {
            return set;
        };
        if set.words.len() <= word {
            set.words.resize(word + 1, 0);
        }
        set.words[word] |= 1 << (index % WORD_BITS);
        let full = set.words.iter().take_while(|word| **word == u64::MAX).count();
        set.words.drain(..full);
        set.full_words += full;
        set
    }

    /// The lowest number that is not in the set.
    pub(super) fn first_absent(&self) -> usize {
        let ones = self.words.first().map_or(0, |word| word.trailing_ones() as usize);
        self.full_words * WORD_BITS + ones
    }

    pub(super) fn is_subset(&self, other: &Self) -> bool {
        (other.full_words..self.full_words + self.words.len())
            .all(|index| self.word(index) & !other.word(index) == 0)
    }

    fn word(&self, index: usize) -> u64 {
        match index.checked_sub(self.full_words) {
            Some(index) => self.words.get(index).copied().unwrap_or(0),
            None => u64::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn agrees_with_a_plain_set() {
        let mut seed = 1_u64;
        let mut random = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(seed >> 33).unwrap() % below
        };
        for _ in 0..200 {
            let (mut set, mut plain) = (OpSet::default(), BTreeSet::new());
            let below = 1 + random(200);
            for _ in 0..random(300) {
                let (before, index) = (set.clone(), random(below));
                set = set.with(index);
                let is_new = plain.insert(index);
                assert!(before.is_subset(&set));
                assert_eq!(set.is_subset(&before), !is_new);
            }
            assert!((0..below + 70).all(|index| set.contains(index) == plain.contains(&index)));
            let first_absent = (0..=below).find(|index| !plain.contains(index)).unwrap();
            assert_eq!(set.first_absent(), first_absent);
            assert!(OpSet::prefix(first_absent).is_subset(&set));
            assert_eq!(set.is_subset(&OpSet::prefix(first_absent)), plain.len() == first_absent);
            assert_eq!(set == OpSet::prefix(first_absent), plain.len() == first_absent);
            let shuffled = plain.iter().rev().fold(OpSet::default(), |set, index| set.with(*index));
            assert_eq!(shuffled, set, "one representation whatever the order of insertion");
        }
    }
}
