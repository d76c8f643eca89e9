//! TLS for one probe.

use crate::error::{Failure, fail};
use crate::stream::Stream;
use api::Tls;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use tokio_rustls::TlsConnector;

/// When the files of a configuration were last changed.
type Stamps = Vec<Option<SystemTime>>;
/// The protocols offered by ALPN.
type Protocols = Vec<Vec<u8>>;
/// A configuration, and of which state of its files.
type Made = (Stamps, Arc<ClientConfig>);
/// Most configurations kept.
const KEPT_MAX: usize = 1024;

/// Configurations made of the files they name; made again when a file changes.
#[derive(Debug, Default)]
pub(crate) struct Configurations {
    made: Mutex<BTreeMap<(Tls, Protocols), Made>>,
}

impl Configurations {
    /// Speaks TLS on a stream. `name` serves when none is chosen.
    pub(crate) async fn connect<S: Stream>(
        &self,
        stream: S,
        tls: &Tls,
        name: Option<&str>,
        address: IpAddr,
        protocols: &[&[u8]],
    ) -> Result<tokio_rustls::client::TlsStream<S>, Failure> {
        let config = self.get(tls, protocols)?;
        let name = match tls.name.as_deref().or(name) {
            // A host may come with a port.
            Some(name) => match ServerName::try_from(host_only(name).to_owned()) {
                Ok(name) => name,
                Err(_) => return fail(format!("`{name}' cannot be asked for in TLS")),
            },
            None => ServerName::from(address),
        };
        match TlsConnector::from(config).connect(name, stream).await {
            Ok(stream) => Ok(stream),
            Err(error) => fail(format!("TLS: {error}")),
        }
    }

    fn get(&self, tls: &Tls, protocols: &[&[u8]]) -> Result<Arc<ClientConfig>, Failure> {
        let files = [&tls.authorities, &tls.certificate, &tls.key];
        let stamp = |path: &Path| std::fs::metadata(path).and_then(|it| it.modified()).ok();
        let stamps: Stamps = files.into_iter().flatten().map(|path| stamp(path)).collect();
        let key = (tls.clone(), protocols.iter().map(|it| it.to_vec()).collect::<Protocols>());
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, config)) = made.get(&key)
            && *of == stamps
        {
            return Ok(Arc::clone(config));
        }
        let mut config = make(tls)?;
        config.alpn_protocols.clone_from(&key.1);
        let config = Arc::new(config);
        if made.len() >= KEPT_MAX {
            made.clear();
        }
        made.insert(key, (stamps, Arc::clone(&config)));
        Ok(config)
    }
}

fn make(tls: &Tls) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure(format!("TLS: {error}")))?;
    let builder = if tls.verify {
        builder.with_root_certificates(authorities(tls.authorities.as_deref())?)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    };
    match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => {
            let private = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| Failure(format!("cannot read the key {}: {error}", key.display())))?;
            builder.with_client_auth_cert(certificates(certificate)?, private).map_err(|error| {
                Failure(format!("the client certificate {}: {error}", certificate.display()))
            })
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

fn authorities(path: Option<&Path>) -> Result<RootCertStore, Failure> {
    let mut store = RootCertStore::empty();
    let found = match path {
        Some(path) => certificates(path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let (taken, _) = store.add_parsable_certificates(found);
    if taken == 0 {
        let place = path.map_or("this system".to_owned(), |path| path.display().to_string());
        return fail(format!("no certificate of an authority in {place}"));
    }
    Ok(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    read.map_err(|error| Failure(format!("cannot read the certificates in {}: {error}", path.display())))
}

fn host_only(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.contains(':') => name,
        _ => host,
    }
}

/// Takes any certificate: a check asks whether the server answers, not who it is, unless `verify` is chosen.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
