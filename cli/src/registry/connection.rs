//! How to reach a registry: scheme, certificates, timeouts, pace.

use std::{cell::OnceCell, path::PathBuf, time::Duration};

use reqwest::Url;

use super::Error;
use crate::reference::Host;

/// Options of every command that takes a reference.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Registry options")]
pub struct Connection {
    /// Speak plain HTTP to registries. This machine's own (localhost, 127.0.0.1, [::1]) are
    /// spoken to so without asking, unless `--ca-file` is given.
    #[arg(long, conflicts_with = "ca_file")]
    pub plain_http: bool,
    /// PEM certificates of a private CA, trusted beside the system's.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

impl Connection {
    /// The registry's address with its scheme.
    pub fn origin(&self, host: &Host) -> Result<Url, Error> {
        let plain = self.plain_http || (host.is_loopback() && self.ca_file.is_none());
        let scheme = if plain { "http" } else { "https" };
        // Docker Hub's registry is not where its name says.
        let name = match host.as_str() {
            "docker.io" | "index.docker.io" => "registry-1.docker.io",
            name => name,
        };
        Url::parse(&format!("{scheme}://{name}/")).map_err(|error| Error::Protocol {
            host: host.to_string(),
            what: format!("is not an address: {error}"),
        })
    }
}

/// HTTP clients, made when first used: reading the system's certificates takes longer
/// than everything a local command does.
pub struct Clients {
    connection: Connection,
    plain: OnceCell<reqwest::Client>,
    secure: OnceCell<reqwest::Client>,
}

impl Clients {
    /// None yet.
    pub const fn new(connection: Connection) -> Self {
        Self {
            connection,
            plain: OnceCell::new(),
            secure: OnceCell::new(),
        }
    }

    /// The one for this address.
    pub fn of(&self, url: &Url) -> Result<&reqwest::Client, Error> {
        let (cell, secure) = match url.scheme() {
            "https" => (&self.secure, true),
            _ => (&self.plain, false),
        };
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        let client = self.build(secure, url)?;
        Ok(cell.get_or_init(|| client))
    }

    fn build(&self, secure: bool, url: &Url) -> Result<reqwest::Client, Error> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("bpfseal/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .referer(false)
            // Redirects are followed by `exchange`, which decides who sees credentials.
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never());
        if is_loopback(url) {
            builder = builder.no_proxy();
        }
        if !secure {
            builder = builder.tls_certs_only([]);
        } else if let Some(file) = &self.connection.ca_file {
            builder = builder.tls_certs_merge(read_certificates(file)?);
        }
        builder.build().map_err(|error| Error::Unreachable {
            host: url.host_str().unwrap_or_default().to_owned(),
            cause: super::exchange::causes(&error),
            secure,
        })
    }
}

fn read_certificates(file: &PathBuf) -> Result<Vec<reqwest::Certificate>, Error> {
    let doing = format!("cannot read the certificates in {}", file.display());
    let pem = std::fs::read(file).map_err(Error::local(doing.clone()))?;
    let invalid = |why: &str| Error::Local {
        doing: doing.clone(),
        cause: std::io::Error::new(std::io::ErrorKind::InvalidData, why.to_owned()),
    };
    let certificates = reqwest::Certificate::from_pem_bundle(&pem)
        .map_err(|error| invalid(&super::exchange::causes(&error)))?;
    if certificates.is_empty() {
        return Err(invalid("there is no PEM certificate in it"));
    }
    Ok(certificates)
}

fn is_loopback(url: &Url) -> bool {
    url.host_str()
        .and_then(|host| host.parse::<Host>().ok())
        .is_some_and(|host| host.is_loopback())
}

/// How often and how fast to try again.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Tries of one request, or of one stretch of a body without any progress.
    pub tries: u32,
    /// Wait before the second try; doubled for each further one.
    pub first_wait: Duration,
    /// The longest `Retry-After` that is waited for.
    pub longest_wait: Duration,
    /// The longest silence while a body arrives.
    pub silence: Duration,
}

impl Default for Pace {
    /// Four tries within two seconds or so: a person is waiting.
    fn default() -> Self {
        Self {
            tries: 4,
            first_wait: Duration::from_millis(250),
            longest_wait: Duration::from_secs(60),
            silence: Duration::from_secs(30),
        }
    }
}

/// A handshake across the world takes one second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chooses_the_scheme() {
        let plain = Connection {
            plain_http: true,
            ca_file: None,
        };
        let private = Connection {
            plain_http: false,
            ca_file: Some("ca.pem".into()),
        };
        let default = Connection::default();
        for (connection, host, want) in [
            (&default, "localhost:5000", "http://localhost:5000/"),
            (&default, "127.0.0.1:5000", "http://127.0.0.1:5000/"),
            (&default, "[::1]:5000", "http://[::1]:5000/"),
            (&default, "r.io", "https://r.io/"),
            (&default, "docker.io", "https://registry-1.docker.io/"),
            (&default, "10.0.0.1:5000", "https://10.0.0.1:5000/"),
            (&plain, "r.io:80", "http://r.io/"),
            (&private, "localhost:5000", "https://localhost:5000/"),
        ] {
            let host: Host = host.parse().unwrap();
            assert_eq!(connection.origin(&host).unwrap().as_str(), want, "{host}");
        }
    }
}
