//! How much one address may ask for: token buckets.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use crate::config::Limits;

/// Most addresses that are told apart. More share what is left.
const MOST: usize = 100_000;

/// Wrong passwords and tokens that an address may send in a minute unless configured.
const FAILED_LOGINS: u32 = 60;

/// The limits of `[limits]`.
pub struct Rates {
    requests: Option<Buckets<IpAddr>>,
    logins: Buckets<IpAddr>,
}

impl Rates {
    /// As configured.
    pub fn new(limits: &Limits) -> Self {
        let requests = limits.requests_per_second.map(|rate| {
            let burst = limits.burst.unwrap_or(rate.saturating_mul(2)).max(1);
            Buckets::new(f64::from(rate), f64::from(burst))
        });
        let failed = f64::from(limits.failed_logins_per_minute.unwrap_or(FAILED_LOGINS));
        Self {
            requests,
            logins: Buckets::new(failed / 60.0, failed.max(1.0)),
        }
    }

    /// Counts a request. Seconds to wait if it is one too many.
    pub fn request(&self, peer: IpAddr) -> Result<(), u64> {
        self.requests
            .as_ref()
            .map_or(Ok(()), |requests| requests.take(peer, 1.0, Instant::now()))
    }

    /// Whether the address may try a password or token. Counts nothing.
    pub fn login(&self, peer: IpAddr) -> Result<(), u64> {
        self.logins.take(peer, 0.0, Instant::now())
    }

    /// Counts a wrong password or token.
    pub fn failed_login(&self, peer: IpAddr) {
        let _ = self.logins.take(peer, 1.0, Instant::now());
    }
}

struct Buckets<K> {
    rate: f64,
    burst: f64,
    levels: Mutex<HashMap<K, (f64, Instant)>>,
}

impl<K: Hash + Eq> Buckets<K> {
    fn new(rate: f64, burst: f64) -> Self {
        Self {
            rate,
            burst,
            levels: Mutex::new(HashMap::new()),
        }
    }

    fn take(&self, key: K, cost: f64, now: Instant) -> Result<(), u64> {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        if levels.len() >= MOST && !levels.contains_key(&key) {
            let (rate, burst) = (self.rate, self.burst);
            levels.retain(|_, (level, at)| *level + rate * (now - *at).as_secs_f64() < burst);
            if levels.len() >= MOST {
                return Err(1);
            }
        }
        let (level, at) = levels.entry(key).or_insert((self.burst, now));
        *level = (*level + self.rate * (now - *at).as_secs_f64()).min(self.burst);
        *at = now;
        if *level < 1.0 {
            return Err(((1.0 - *level) / self.rate).ceil().clamp(1.0, 3600.0) as u64);
        }
        *level -= cost;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_fills_with_time() {
        let buckets = Buckets::new(2.0, 3.0);
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut took = Vec::new();
        for time in [0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 10.0, 10.0, 10.0, 10.0] {
            took.push(buckets.take("a", 1.0, at(time)).is_ok());
        }
        assert_eq!(
            took,
            [
                true, true, true, false, true, false, true, true, true, false
            ]
        );
        assert_eq!(buckets.take("a", 1.0, at(10.0)), Err(1));
        assert_eq!(buckets.take("b", 1.0, at(10.0)), Ok(()));
    }
}
