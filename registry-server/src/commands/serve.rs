//! `bpfseal-registry serve`.

use std::{
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use command::Output;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    time::MissedTickBehavior,
};
use tracing_subscriber::EnvFilter;

use super::{Frame, Root, misconfigured, with_registry};
use crate::{
    audit::Audit,
    config::{Config, Tls},
    failure::{Exit, Failure},
    gc::{self, Collected, Scope},
    registry::{Registry, Settings},
    server,
    site::Site,
    tls::Certificates,
};

/// Serve the registry over HTTP.
///
/// Prints one line with the address it listens on, then logs to standard error.
/// SIGTERM and SIGINT let requests in flight finish; SIGHUP reads the configuration and
/// the certificates anew, which happens by itself when their files change.
#[derive(Clone, clap::Args)]
#[command(after_help = "\
Examples:
  bpfseal-registry serve
  bpfseal-registry serve --root /var/lib/bpfseal-registry --listen 0.0.0.0:5000
  bpfseal-registry serve --htpasswd users.htpasswd --tls-certificate tls.pem --tls-key tls.key
  bpfseal-registry serve --config registry.toml
  bpfseal-registry serve --root $(mktemp -d) --listen 127.0.0.1:0 --json

Clients:
  oras push --plain-http 127.0.0.1:5000/demo:v1 file.txt
  skopeo copy --dest-tls-verify=false oci:layout docker://127.0.0.1:5000/demo:v1
  crane ls 127.0.0.1:5000/demo")]
pub struct Args {
    #[command(flatten)]
    root: Root,
    /// Address to listen on; port 0 takes a free one [default: 127.0.0.1:5000]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Users with passwords (`bpfseal-registry user`): who is in it may pull, push and
    /// delete, unless the configuration has rules.
    #[arg(long, value_name = "FILE")]
    htpasswd: Option<PathBuf>,
    /// With users: everybody may pull.
    #[arg(long)]
    anonymous_pull: bool,
    /// Speak TLS: the certificate and what leads to its root, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// The certificate's private key, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
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

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let json = output.is_json();
    start_log(json);
    let settings = Settings {
        sparse: args.allow_sparse,
        cache_bytes: usize::from(args.cache) << 20,
        uploads: args.max_uploads as usize,
        upload_idle: Duration::from_secs(args.upload_expiry),
        idle: Duration::from_secs(args.client_timeout),
        grace: Duration::from_secs(args.gc_grace),
    };
    let (mut config, storage) = args.root.open()?;
    let root = &storage.root;
    args.complete(&mut config);
    let certificates = config.tls.clone().map(Certificates::open).transpose();
    let certificates = certificates.map_err(misconfigured)?.map(Arc::new);
    let frame = || {
        let file = config.audit.file.clone();
        let file = file.unwrap_or_else(|| root.join("audit.jsonl"));
        let audit = Audit::open(&file).map_err(|error| {
            let message = format!("cannot write {}: {error}", file.display());
            Failure::new(Exit::Usage, message).with_remedy("Name another file in [audit].")
        })?;
        Ok(Frame {
            site: Site::new(&config, root).map_err(misconfigured)?,
            config: args.root.config.clone(),
            flags: Box::new({
                let args = args.clone();
                move |config| args.complete(config)
            }),
            audit: Some(audit),
        })
    };
    let listen = config.listen.as_deref().unwrap_or("127.0.0.1:5000");
    with_registry(&storage, settings, frame, async |registry| {
        serve(args, json, registry, listen, certificates).await
    })
}

impl Args {
    /// Flags come before the configuration's values.
    fn complete(&self, config: &mut Config) {
        if let Some(listen) = &self.listen {
            config.listen = Some(listen.clone());
        }
        if let (Some(certificate), Some(key)) = (&self.tls_certificate, &self.tls_key) {
            config.tls = Some(Tls {
                certificate: certificate.clone(),
                key: key.clone(),
                client_ca: config.tls.as_ref().and_then(|tls| tls.client_ca.clone()),
                require_client_certificate: false,
            });
        }
        if self.htpasswd.is_some() || self.anonymous_pull {
            let auth = config.auth.get_or_insert_default();
            auth.anonymous_pull |= self.anonymous_pull;
            if let Some(htpasswd) = &self.htpasswd {
                auth.htpasswd = Some(htpasswd.clone());
            }
        }
    }
}

async fn serve(
    args: &Args,
    json: bool,
    registry: Arc<Registry>,
    listen: &str,
    certificates: Option<Arc<Certificates>>,
) -> Result<(), Failure> {
    let listener = TcpListener::bind(listen).await;
    let bound = listener.and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, listener) = bound.map_err(|error| {
        let message = format!("cannot listen on {listen}: {error}");
        Failure::new(Exit::Network, message).with_remedy("Choose another address with --listen.")
    })?;
    let stop = stop_signal().map_err(|error| Failure::from_error(Exit::Internal, &error))?;
    // Before anybody is told that it serves: SIGHUP ends a process that does not expect it.
    let hangup = signal(SignalKind::hangup());
    let hangup = hangup.map_err(|error| Failure::from_error(Exit::Internal, &error))?;
    announce(address, certificates.is_some(), json);
    let scope = Scope {
        grace: registry.settings.grace,
        untagged: args.gc_untagged,
    };
    let housekeeping = tokio::spawn(expire_uploads(Arc::clone(&registry)));
    let collecting = (args.gc_interval > 0).then(|| {
        let every = Duration::from_secs(args.gc_interval);
        tokio::spawn(collect(Arc::clone(&registry), every, scope))
    });
    let watching = tokio::spawn(watch(Arc::clone(&registry), certificates.clone(), hangup));
    let connections = args.max_connections as usize;
    server::serve(registry, listener, certificates, connections, stop).await;
    housekeeping.abort();
    watching.abort();
    if let Some(collecting) = collecting {
        collecting.abort();
    }
    tracing::info!("stopped");
    Ok(())
}

/// The one line on standard output: scripts wait for it.
fn announce(address: SocketAddr, tls: bool, json: bool) {
    let mut out = std::io::stdout().lock();
    let written = if json {
        let line = serde_json::json!({ "event": "listening", "address": address.to_string() });
        writeln!(out, "{line}")
    } else {
        let scheme = if tls { "https" } else { "http" };
        writeln!(out, "listening on {scheme}://{address}")
    };
    // Nobody reads it, perhaps: no reason not to serve.
    let _ = written.and_then(|()| out.flush());
}

/// Reads the configuration and the certificates anew when they change, and at SIGHUP.
async fn watch(
    registry: Arc<Registry>,
    certificates: Option<Arc<Certificates>>,
    mut hangup: Signal,
) {
    let stamps = |files: &Option<Arc<Certificates>>| -> Vec<Option<(SystemTime, u64)>> {
        let files = files.iter().flat_map(|files| files.files());
        let files = files.map(Path::to_owned).chain(registry.current.files());
        let stamp = |path: PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        files.map(stamp).collect()
    };
    let mut seen = stamps(&certificates);
    let mut every = tokio::time::interval(Duration::from_secs(2));
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let asked = tokio::select! {
            _ = every.tick() => false,
            _ = hangup.recv() => true,
        };
        let now = stamps(&certificates);
        if now == seen && !asked {
            continue;
        }
        seen = now;
        if asked && let Some(audit) = &registry.audit {
            audit.reopen();
        }
        let certificates = certificates.as_ref().map_or(Ok(()), |files| files.reload());
        match certificates.and_then(|()| registry.current.reload()) {
            Ok(()) => tracing::info!("the configuration was read anew"),
            Err(error) => {
                let count = &registry.metrics.misconfigured;
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                tracing::error!(%error, "the configuration stays as it was");
            }
        }
    }
}

async fn expire_uploads(registry: Arc<Registry>) {
    let mut every = tokio::time::interval(Duration::from_secs(60));
    loop {
        every.tick().await;
        if let Err(error) = registry.uploads.expire_idle().await {
            tracing::warn!(%error, "abandoned uploads could not be removed");
        }
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
