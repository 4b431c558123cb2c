//! TLS by rustls: certificates from files, read anew when they change.

use std::{
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio_rustls::TlsAcceptor;
use x509_parser::{extensions::GeneralName, prelude::FromDer as _};

use crate::config::{ConfigError, Tls};

/// Certificates in use.
pub struct Certificates {
    files: Tls,
    server: RwLock<Arc<ServerConfig>>,
}

impl Certificates {
    /// Reads the files; all of them must be usable and fit together.
    pub fn open(files: Tls) -> Result<Self, ConfigError> {
        let server = RwLock::new(Arc::new(read(&files)?));
        Ok(Self { files, server })
    }

    /// Reads them anew. What is unusable changes nothing.
    pub fn reload(&self) -> Result<(), ConfigError> {
        let server = Arc::new(read(&self.files)?);
        *self.server.write().unwrap_or_else(PoisonError::into_inner) = server;
        Ok(())
    }

    /// For the next connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        let server = self.server.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&server))
    }

    /// The files that it is made of.
    pub fn files(&self) -> Vec<&Path> {
        let client_ca = self.files.client_ca.as_deref();
        [&*self.files.certificate, &*self.files.key]
            .into_iter()
            .chain(client_ca)
            .collect()
    }
}

fn read(files: &Tls) -> Result<ServerConfig, ConfigError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| unusable(&files.key, "a private key in PEM", &error))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&files.certificate, "TLS", &error))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for root in certificates(path)? {
                roots
                    .add(root)
                    .map_err(|error| unusable(path, "roots of clients", &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if files.require_client_certificate {
                verifier
            } else {
                verifier.allow_unauthenticated()
            };
            let verifier = verifier.build();
            builder.with_client_cert_verifier(
                verifier.map_err(|error| unusable(path, "roots of clients", &error))?,
            )
        }
    };
    let mut server = builder
        .with_single_cert(chain, key)
        .map_err(|error| unusable(&files.certificate, "a certificate for the key", &error))?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(server)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let chain = chain.map_err(|error| unusable(path, "certificates in PEM", &error))?;
    if chain.is_empty() {
        return Err(unusable(path, "certificates in PEM", &"there is none"));
    }
    Ok(chain)
}

fn unusable(path: &Path, what: &str, error: &dyn std::fmt::Display) -> ConfigError {
    ConfigError::Unusable(format!("{}: not {what}: {error}", path.display()))
}

/// What a client's certificate calls it: its first name of the kinds DNS, URI or e-mail,
/// else its common name. The certificate was verified during the handshake.
pub fn name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(certificate).ok()?;
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let names = alternative
        .iter()
        .flat_map(|names| &names.value.general_names);
    let mut names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => {
            Some((*name).to_owned())
        }
        _ => None,
    });
    names.next().or_else(|| {
        let common = certificate.subject().iter_common_name().next()?;
        common.as_str().ok().map(str::to_owned)
    })
}
