//! Bodies of requests and responses: streamed, bounded in memory and in time.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    error::{Code, OciError},
    range::Span,
    store::Content,
};

/// Bytes read from a file at a time, and so held for each download.
const CHUNK: u64 = 256 * 1024;

/// Slowest client that is served, after [`GRACE`]: below it a connection only occupies
/// a place.
const LEAST_BYTES_PER_SECOND: u64 = 1024;

/// How long a body may be slower than that.
const GRACE: Duration = Duration::from_secs(60);

/// The body of a response.
pub enum Body {
    /// Bytes in memory, possibly none.
    Full(Bytes),
    /// Part of a blob, read while it is sent.
    Blob(Download),
}

/// A blob on its way to a client.
pub struct Download {
    content: Arc<dyn Content>,
    span: Span,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Download {
    /// Sends `span` of `content`.
    pub fn new(content: Box<dyn Content>, span: Span) -> Self {
        Self {
            content: content.into(),
            span,
            reading: None,
        }
    }

    /// Starts reading the next chunk, if there is one.
    fn read(&mut self) -> Option<&mut JoinHandle<io::Result<Bytes>>> {
        if self.reading.is_none() && self.span.start < self.span.end {
            let start = self.span.start;
            let length = (self.span.end - start).min(CHUNK);
            let content = Arc::clone(&self.content);
            self.span.start += length;
            self.reading = Some(tokio::task::spawn_blocking(move || {
                let mut buffer = BytesMut::zeroed(length as usize);
                content.read_at(&mut buffer, start)?;
                Ok(buffer.freeze())
            }));
        }
        self.reading.as_mut()
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Blob(download) => {
                let Some(reading) = download.read() else {
                    return Poll::Ready(None);
                };
                let read = ready!(Pin::new(reading).poll(context));
                download.reading = None;
                let read = read.map_err(io::Error::other).flatten();
                if let Err(error) = &read {
                    tracing::error!(%error, "a blob could not be read to its end");
                    download.span.start = download.span.end;
                } else {
                    // The next chunk is read while this one is sent.
                    download.read();
                }
                Poll::Ready(Some(read.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::Blob(download) => {
                download.reading.is_none() && download.span.start >= download.span.end
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Blob(_) => SizeHint::default(),
        }
    }
}

/// The body of a request, with a limit on a client's patience-wearing.
pub struct Intake {
    body: Incoming,
    idle: Duration,
    started: Instant,
    received: u64,
}

impl Intake {
    /// Reads `body`; a client that sends nothing for `idle` is given up.
    pub fn new(body: Incoming, idle: Duration) -> Self {
        Self {
            body,
            idle,
            started: Instant::now(),
            received: 0,
        }
    }

    /// The next bytes, or nothing at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, OciError> {
        loop {
            let frame = tokio::time::timeout(self.idle, self.body.frame()).await;
            let Some(frame) = frame.map_err(|_| too_slow())? else {
                return Ok(None);
            };
            let frame = frame.map_err(|_| broken_off())?;
            // Trailers mean nothing to a registry.
            let Ok(bytes) = frame.into_data() else {
                continue;
            };
            self.received += bytes.len() as u64;
            let allowed = GRACE + Duration::from_secs(self.received / LEAST_BYTES_PER_SECOND);
            if self.started.elapsed() > allowed {
                return Err(too_slow());
            }
            return Ok(Some(bytes));
        }
    }

    /// Reads on for a while without keeping anything, so that a client that is still
    /// sending gets to read the answer instead of a reset connection.
    pub async fn drain(&mut self) -> Result<(), OciError> {
        let end = self.received + DRAIN;
        while self.received < end && self.next().await?.is_some() {}
        Ok(())
    }
}

/// How much of an unwanted body is read.
const DRAIN: u64 = 64 * 1024 * 1024;

fn too_slow() -> OciError {
    OciError::new(Code::TooManyRequests, "the request's body came too slowly")
        .status(StatusCode::REQUEST_TIMEOUT)
        .header(header::CONNECTION, "close")
}

fn broken_off() -> OciError {
    OciError::new(
        Code::SizeInvalid,
        "the request's body broke off or is malformed",
    )
    .header(header::CONNECTION, "close")
}
