//! Which keys and values a run uses, and in which order.

use bytes::Bytes;
use clap::{Args, ValueEnum};

use crate::client::Failure;

/// So many different values are made before the run; what compresses them away sees through no more.
const VALUES: usize = 64;

/// What is stored, and how keys are chosen.
#[derive(Args, Clone, Debug)]
pub(crate) struct Data {
    /// How many keys there are
    #[arg(long, default_value_t = 100_000)]
    pub(crate) keys: u64,
    /// Bytes of a key
    #[arg(long, default_value_t = 32)]
    pub(crate) key_size: usize,
    /// Bytes of a value; they are random
    #[arg(long, default_value_t = 256)]
    pub(crate) value_size: usize,
    /// What all keys begin with
    #[arg(long, default_value = "bench/")]
    pub(crate) prefix: String,
    /// How keys are chosen
    #[arg(long, default_value = "uniform")]
    pub(crate) distribution: Distribution,
}

/// How keys are chosen.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Distribution {
    /// Each as often as any other
    Uniform,
    /// One after the other
    Sequential,
    /// Few of them very often: the n-th with a frequency of 1/n^0.99, scattered
    Zipf,
}

impl Data {
    /// Refuses what cannot be.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.keys == 0 {
            return Err(Failure::Input("--keys must be at least 1".to_owned()));
        }
        // The end of all keys has a number too.
        let digits = self.keys.to_string().len();
        let least = self.prefix.len() + digits;
        if self.key_size < least {
            return Err(Failure::Input(format!(
                "--key-size must be at least {least} for {} keys that begin with {:?}",
                self.keys, self.prefix
            )));
        }
        Ok(())
    }

    /// The key of this number. Their order is that of their numbers.
    pub(crate) fn key(&self, mut number: u64) -> Bytes {
        let mut key = vec![b'0'; self.key_size];
        key[..self.prefix.len()].copy_from_slice(self.prefix.as_bytes());
        for digit in key[self.prefix.len()..].iter_mut().rev() {
            *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
            number /= 10;
        }
        key.into()
    }

    /// The number of a key, if it is one of these.
    pub(crate) fn number(&self, key: &[u8]) -> Option<u64> {
        let digits = key.strip_prefix(self.prefix.as_bytes())?;
        std::str::from_utf8(digits).ok()?.parse().ok().filter(|_| key.len() == self.key_size)
    }

    /// The values that are put in turn.
    pub(crate) fn values(&self, random: &mut Random) -> Vec<Bytes> {
        (0..VALUES)
            .map(|_| {
                let mut value = Vec::with_capacity(self.value_size + 8);
                while value.len() < self.value_size {
                    value.extend_from_slice(&random.next().to_le_bytes());
                }
                value.truncate(self.value_size);
                value.into()
            })
            .collect()
    }
}

/// Numbers that look random and are the same for the same seed: SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Independent numbers for each `stream` of a seed.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Self(mix(seed ^ mix(stream.wrapping_add(1))))
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product; what that prefers is beyond what a run could notice.
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from 0 to 1, without 1.
    #[allow(clippy::cast_precision_loss, reason = "53 bits are what fits")]
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

/// Chooses keys for one client.
pub(crate) struct Chooser {
    random: Random,
    /// The numbers of keys: from `first`, so many.
    first: u64,
    count: u64,
    order: Order,
}

enum Order {
    Uniform,
    Sequential { next: u64 },
    Zipf(Zipf),
}

impl Chooser {
    /// Chooses from `count` keys, of which there is at least one.
    pub(crate) fn new(distribution: Distribution, first: u64, count: u64, random: Random) -> Self {
        let count = count.max(1);
        let order = match distribution {
            Distribution::Uniform => Order::Uniform,
            Distribution::Sequential => Order::Sequential { next: 0 },
            Distribution::Zipf => Order::Zipf(Zipf::new(count)),
        };
        Self { random, first, count, order }
    }

    /// A sequence that begins at its `number`th key.
    pub(crate) fn beginning_at(mut self, number: u64) -> Self {
        if let Order::Sequential { next } = &mut self.order {
            *next = number % self.count;
        }
        self
    }

    /// The number of the next key.
    pub(crate) fn next(&mut self) -> u64 {
        let offset = match &mut self.order {
            Order::Uniform => self.random.below(self.count),
            Order::Sequential { next } => {
                let this = *next;
                *next = (this + 1) % self.count;
                this
            }
            // Neighbours in rank are no neighbours in the order of keys.
            Order::Zipf(zipf) => mix(zipf.rank(self.random.unit())) % self.count,
        };
        self.first + offset
    }

    /// A number below `bound`, for other choices.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }
}

/// Ranks with Zipf's frequencies, by the approximation of Gray et al., "Quickly generating
/// billion-record synthetic databases" (1994).
struct Zipf {
    count: f64,
    zeta: f64,
    alpha: f64,
    eta: f64,
}

const THETA: f64 = 0.99;

impl Zipf {
    #[allow(clippy::cast_precision_loss, reason = "it is an approximation")]
    fn new(count: u64) -> Self {
        // The sum up to `EXACT`, and the integral behind it.
        const EXACT: u64 = 10_000;
        let mut zeta: f64 = (1..=count.min(EXACT)).map(|rank| (rank as f64).powf(-THETA)).sum();
        if count > EXACT {
            let power = 1.0 - THETA;
            zeta += ((count as f64).powf(power) - (EXACT as f64).powf(power)) / power;
        }
        let count = count as f64;
        let zeta_of_two = 1.0 + 0.5_f64.powf(THETA);
        let eta = (1.0 - (2.0 / count).powf(1.0 - THETA)) / (1.0 - zeta_of_two / zeta);
        Self { count, zeta, alpha: 1.0 / (1.0 - THETA), eta }
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the rank is between 0 and the count"
    )]
    fn rank(&self, unit: f64) -> u64 {
        let scaled = unit * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5_f64.powf(THETA) {
            return 1;
        }
        (self.count * (self.eta * unit - self.eta + 1.0).powf(self.alpha)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(keys: u64, key_size: usize) -> Data {
        Data {
            keys,
            key_size,
            value_size: 100,
            prefix: "bench/".to_owned(),
            distribution: Distribution::Uniform,
        }
    }

    #[test]
    fn keys_are_in_the_order_of_their_numbers() {
        let data = data(1000, 12);
        assert_eq!(data.key(0).as_ref(), b"bench/000000");
        assert_eq!(data.key(907).as_ref(), b"bench/000907");
        assert!(data.key(99) < data.key(100));
        assert_eq!(data.number(&data.key(907)), Some(907));
        assert_eq!(data.number(b"bench/0000000"), None);
        assert_eq!(data.number(b"other/000000"), None);
    }

    #[test]
    fn keys_that_do_not_fit_are_refused() {
        assert!(data(999, 9).check().is_ok());
        assert!(data(1000, 9).check().is_err());
        assert!(data(0, 9).check().is_err());
    }

    #[test]
    fn values_have_their_size_and_the_seed_decides_them() {
        let values = data(1, 32).values(&mut Random::new(7, 0));
        assert!(values.iter().all(|value| value.len() == 100));
        assert_eq!(values, data(1, 32).values(&mut Random::new(7, 0)));
        assert_ne!(values, data(1, 32).values(&mut Random::new(7, 1)));
    }

    #[test]
    fn choices_stay_within_their_part() {
        for order in [Distribution::Uniform, Distribution::Sequential, Distribution::Zipf] {
            let mut chooser = Chooser::new(order, 500, 100, Random::new(1, 1));
            for _ in 0..1000 {
                assert!((500..600).contains(&chooser.next()));
            }
        }
        let mut sequence = Chooser::new(Distribution::Sequential, 0, 3, Random::new(1, 1));
        assert_eq!([0, 1, 2, 0].map(|_| sequence.next()), [0, 1, 2, 0]);
    }

    #[test]
    fn the_first_of_zipfs_ranks_are_the_most_frequent() {
        let zipf = Zipf::new(100_000);
        let mut random = Random::new(3, 3);
        let mut first = 0;
        let mut first_hundred = 0;
        for _ in 0..100_000 {
            let rank = zipf.rank(random.unit());
            assert!(rank < 100_000);
            first += u32::from(rank == 0);
            first_hundred += u32::from(rank < 100);
        }
        // 1/zeta and zeta(100)/zeta, with zeta(n) the sum of the first n frequencies.
        assert!((7_000..9_000).contains(&first), "{first}");
        assert!((39_000..46_000).contains(&first_hundred), "{first_hundred}");
    }
}
