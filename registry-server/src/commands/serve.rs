//! `bpfseal-registry serve`.

use std::{io::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::MissedTickBehavior,
};
use tracing_subscriber::EnvFilter;

use super::{Root, with_registry};
use crate::{
    failure::{Exit, Failure},
    gc::{self, Collected, Scope},
    registry::{Registry, Settings},
    server,
};

/// Serve the registry over HTTP.
///
/// Prints one line with the address it listens on, then logs to standard error.
/// SIGTERM and SIGINT let requests in flight finish.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bpfseal-registry serve
  bpfseal-registry serve --root /var/lib/bpfseal-registry --listen 0.0.0.0:5000
  bpfseal-registry serve --root $(mktemp -d) --listen 127.0.0.1:0 --json

Clients:
  oras push --plain-http 127.0.0.1:5000/demo:v1 file.txt
  skopeo copy --dest-tls-verify=false oci:layout docker://127.0.0.1:5000/demo:v1
  crane ls 127.0.0.1:5000/demo")]
pub struct Args {
    #[command(flatten)]
    root: Root,
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:5000")]
    listen: String,
    /// Accept manifests that refer to blobs or manifests which are not in the repository.
    #[arg(long)]
    allow_sparse: bool,
    /// Memory for small blobs and manifests, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    cache: u16,
    /// Most connections at a time; more wait.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    max_connections: u32,
    /// Most uploads under way at a time; more are told to try again.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_uploads: u32,
    /// Seconds after which an upload that nobody continues is thrown away.
    #[arg(long, value_name = "SECONDS", default_value_t = 24 * 3600)]
    upload_expiry: u64,
    /// Seconds that a client may stay silent in the middle of a request or an answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    client_timeout: u64,
    /// Seconds between garbage collections while serving; 0 collects never.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    gc_interval: u64,
    /// Seconds for which garbage collection leaves alone what somebody pushed or asked for.
    #[arg(long, value_name = "SECONDS", default_value_t = 24 * 3600)]
    gc_grace: u64,
    /// Also collect manifests that have no tag, are in no index and whose subject is gone.
    #[arg(long)]
    gc_untagged: bool,
}

pub fn run(args: &Args, json: bool) -> Result<(), Failure> {
    start_log(json);
    let settings = Settings {
        sparse: args.allow_sparse,
        cache_bytes: usize::from(args.cache) << 20,
        uploads: args.max_uploads as usize,
        upload_idle: Duration::from_secs(args.upload_expiry),
        idle: Duration::from_secs(args.client_timeout),
        grace: Duration::from_secs(args.gc_grace),
    };
    with_registry(&args.root.root, settings, async |registry| {
        serve(args, json, registry).await
    })
}

async fn serve(args: &Args, json: bool, registry: Arc<Registry>) -> Result<(), Failure> {
    let listener = TcpListener::bind(args.listen.as_str()).await;
    let bound = listener.and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, listener) = bound.map_err(|error| {
        let message = format!("cannot listen on {}: {error}", args.listen);
        Failure::new(Exit::Network, message).remedy("Choose another address with --listen.")
    })?;
    let stop = stop_signal().map_err(|error| Failure::from_error(Exit::Internal, &error))?;
    announce(address, json);
    let scope = Scope {
        grace: registry.settings.grace,
        untagged: args.gc_untagged,
    };
    let housekeeping = tokio::spawn(expire_uploads(Arc::clone(&registry)));
    let collecting = (args.gc_interval > 0).then(|| {
        let every = Duration::from_secs(args.gc_interval);
        tokio::spawn(collect(Arc::clone(&registry), every, scope))
    });
    server::serve(registry, listener, args.max_connections as usize, stop).await;
    housekeeping.abort();
    if let Some(collecting) = collecting {
        collecting.abort();
    }
    tracing::info!("stopped");
    Ok(())
}

/// The one line on standard output: scripts wait for it.
fn announce(address: SocketAddr, json: bool) {
    let mut out = std::io::stdout().lock();
    let written = if json {
        let line = serde_json::json!({ "event": "listening", "address": address.to_string() });
        writeln!(out, "{line}")
    } else {
        writeln!(out, "listening on http://{address}")
    };
    // Nobody reads it, perhaps: no reason not to serve.
    let _ = written.and_then(|()| out.flush());
}

async fn expire_uploads(registry: Arc<Registry>) {
    let mut every = tokio::time::interval(Duration::from_secs(60));
    loop {
        every.tick().await;
        registry.uploads.expire_idle().await;
    }
}

async fn collect(registry: Arc<Registry>, every: Duration, scope: Scope) {
    let mut every = tokio::time::interval(every);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        match gc::collect(&registry, scope).await {
            Ok(done) if done == Collected::default() => tracing::debug!("nothing to collect"),
            Ok(Collected {
                manifests,
                blobs,
                bytes,
                files,
            }) => {
                tracing::info!(manifests, blobs, bytes, files, "collected");
            }
            Err(error) => tracing::error!(%error, "garbage collection stopped early"),
        }
    }
}

fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// `RUST_LOG` overrides the level: `RUST_LOG=debug` shows every request.
fn start_log(json: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log = tracing_subscriber::fmt()
        .with_ansi(colour)
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if json {
        log.json().flatten_event(true).init();
    } else {
        log.with_target(false).init();
    }
}
