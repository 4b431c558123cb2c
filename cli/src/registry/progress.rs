//! How far a transfer is, for people at terminals.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// One bar on standard error, with bytes and rate; invisible where that is no terminal.
#[derive(Clone)]
pub struct Progress {
    bar: ProgressBar,
    for_people: bool,
}

/// The bytes of one request body that went out so far.
pub struct Sent {
    bar: ProgressBar,
    bytes: Arc<AtomicU64>,
}

impl Progress {
    /// For machines.
    pub fn hidden() -> Self {
        Self {
            bar: ProgressBar::hidden(),
            for_people: false,
        }
    }

    /// For people, if they are at a terminal.
    pub fn shown(verb: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template(
            "{prefix} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        );
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(verb);
        Self {
            bar,
            for_people: true,
        }
    }

    /// More is to come. The bar appears when it is worth looking at.
    pub fn expect(&self, bytes: u64) {
        let before = self.bar.length().unwrap_or(0);
        self.bar.inc_length(bytes);
        if self.for_people && before < WORTH_A_BAR && before + bytes >= WORTH_A_BAR {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    /// So much is done.
    pub fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// So much must be done again.
    pub fn retreat(&self, bytes: u64) {
        self.bar.dec(bytes);
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// A request body that is counted while it is sent.
    pub fn counted(&self, body: &Bytes) -> (reqwest::Body, Sent) {
        let sent = Sent {
            bar: self.bar.clone(),
            bytes: Arc::default(),
        };
        if body.len() <= PIECE {
            sent.add(body.len());
            return (body.clone().into(), sent);
        }
        let counter = Sent {
            bar: self.bar.clone(),
            bytes: Arc::clone(&sent.bytes),
        };
        let body = body.clone();
        let starts = (0..body.len()).step_by(PIECE);
        let pieces = starts.map(move |start| {
            let piece = body.slice(start..(start + PIECE).min(body.len()));
            counter.add(piece.len());
            Ok::<_, std::convert::Infallible>(piece)
        });
        let stream = futures_util::stream::iter(pieces);
        (reqwest::Body::wrap_stream(stream), sent)
    }
}

impl Sent {
    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.bar.inc(bytes as u64);
    }

    /// It was in vain.
    pub fn undo(&self) {
        self.bar.dec(self.bytes.swap(0, Ordering::Relaxed));
    }
}

/// Less than this is over before a bar is drawn.
const WORTH_A_BAR: u64 = 1 << 20;

/// What a socket takes at once, so that the bar moves with the network.
const PIECE: usize = 64 << 10;
