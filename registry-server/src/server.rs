//! Accepting connections, and letting go of them.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
    sync::Semaphore,
    time::{Instant, Sleep},
};

use crate::{
    api::{self, Peer},
    body::Body,
    metrics::Gauge,
    registry::Registry,
    tls::{self, Certificates},
};

/// The most of a body that is read at once. It bounds what a connection costs in memory.
const BUFFER: usize = 64 * 1024;

/// Largest request head: the longest target, a token of several KiB, and some more.
const MAX_HEAD: usize = 32 * 1024;

/// Most headers in a request: clients send about ten.
const MAX_HEADERS: usize = 100;

/// How long requests in flight may take to finish once the server stops.
const FAREWELL: Duration = Duration::from_secs(20);

/// Serves `registry` until `stop` is ready, then finishes what is in flight.
pub async fn serve(
    registry: Arc<Registry>,
    listener: TcpListener,
    certificates: Option<Arc<Certificates>>,
    connections: usize,
    stop: impl Future<Output = ()>,
) {
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(registry.settings.idle)
        .max_buf_size(BUFFER)
        .max_header_size(MAX_HEAD)
        .max_headers(MAX_HEADERS);
    let places = Arc::new(Semaphore::new(connections));
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        // Without a place nobody is accepted: they wait in the kernel's queue.
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = &mut stop => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let (stream, address) = match accepted {
            Ok((stream, address)) => (stream, address.ip()),
            Err(error) => {
                // Too many open files, or a connection that is gone already.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        // Answers are written whole; waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        let patience = registry.settings.idle;
        let (server, registry) = (server.clone(), Arc::clone(&registry));
        let watcher = graceful.watcher();
        let acceptor = certificates.as_ref().map(|files| files.acceptor());
        tokio::spawn(async move {
            let _open = Gauge::up(&registry.metrics.connections);
            let ended = match acceptor {
                None => {
                    let service = service(&registry, Peer::new(address, None));
                    let stream = TokioIo::new(Patient::new(stream, patience));
                    watcher
                        .watch(server.serve_connection(stream, service))
                        .await
                }
                Some(acceptor) => {
                    let shake = tokio::time::timeout(patience, acceptor.accept(stream)).await;
                    let Ok(Ok(stream)) = shake else {
                        tracing::debug!(%address, "a TLS handshake failed");
                        return;
                    };
                    let certificates = stream.get_ref().1.peer_certificates();
                    let certificate = certificates.and_then(|chain| tls::name(chain.first()?));
                    let service = service(&registry, Peer::new(address, certificate));
                    let stream = TokioIo::new(Patient::new(stream, patience));
                    watcher
                        .watch(server.serve_connection(stream, service))
                        .await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(FAREWELL, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("requests in flight were cut off");
    }
}

fn service(
    registry: &Arc<Registry>,
    peer: Peer,
) -> impl Service<
    Request<Incoming>,
    Response = Response<Body>,
    Error = Infallible,
    Future: Send + 'static,
> + use<> {
    let (registry, peer) = (Arc::clone(registry), Arc::new(peer));
    service_fn(move |request| {
        let (registry, peer) = (Arc::clone(&registry), Arc::clone(&peer));
        async move { Ok::<_, Infallible>(api::answer(registry, &peer, request).await) }
    })
}

/// A stream that fails when the other side takes nothing for too long. (Requests that
/// come too slowly are hyper's and [`crate::body::Intake`]'s to notice.)
struct Patient<S> {
    stream: S,
    patience: Duration,
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    fn new(stream: S, patience: Duration) -> Self {
        Self {
            stream,
            patience,
            stuck: None,
        }
    }

    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        progress: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            self.stuck = None;
            return progress;
        }
        let end = Instant::now() + self.patience;
        let stuck = self
            .stuck
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        match stuck.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let progress = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.watch(context, progress)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let progress = Pin::new(&mut this.stream).poll_write_vectored(context, parts);
        this.watch(context, progress)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let progress = Pin::new(&mut this.stream).poll_flush(context);
        this.watch(context, progress)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let progress = Pin::new(&mut this.stream).poll_shutdown(context);
        this.watch(context, progress)
    }
}
