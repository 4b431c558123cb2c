//! Media types, artifact types and annotation keys: ours, OCI's, Sigstore's.

/// `artifactType` of a bundle's manifest.
pub const BUNDLE: &str = "application/vnd.bpfseal.bundle.v1";
/// The config blob: [`crate::inventory::Inventory`] as JSON.
pub const INVENTORY: &str = "application/vnd.bpfseal.inventory.v1+json";
/// A layer: one raw BPF ELF object.
pub const OBJECT: &str = "application/vnd.bpfseal.object.v1+elf";
/// A layer: a loader of one object that kernels check ([`crate::loader`]).
pub const KERNEL_LOADER: &str = "application/vnd.bpfseal.kernel-loader.v1+elf";

/// OCI image manifest (image-spec 1.1).
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index (image-spec 1.1).
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image configuration, which cosign's older signatures carry.
pub const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The empty JSON object `{}` (image-spec 1.1, "Guidance for an Empty Descriptor").
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The bytes that [`EMPTY`] describes.
pub const EMPTY_JSON: &[u8] = b"{}";

/// A Sigstore bundle, version 0.3; as `artifactType` and as layer (cosign `BUNDLE_SPEC.md`).
pub const SIGSTORE_BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// Older spellings of a Sigstore bundle's type (`sigstore_bundle.proto`).
pub const SIGSTORE_BUNDLE_PREFIX: &str = "application/vnd.dev.sigstore.bundle";
/// A layer of cosign's older signatures (cosign `SIGNATURE_SPEC.md`).
pub const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// `artifactType` of cosign's experimental OCI 1.1 form of the older signatures.
pub const COSIGN_SIGNATURE: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
/// Layer annotation with the base64 signature over a [`SIMPLE_SIGNING`] payload.
pub const COSIGN_SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// Layer annotation with a PEM certificate: such a signature is keyless.
pub const COSIGN_CERTIFICATE_ANNOTATION: &str = "dev.sigstore.cosign/certificate";
/// Layer annotation with the log's promise, as JSON.
pub const COSIGN_BUNDLE_ANNOTATION: &str = "dev.sigstore.cosign/bundle";
/// Layer annotation with an RFC 3161 time stamp, as JSON.
pub const COSIGN_TIMESTAMP_ANNOTATION: &str = "dev.sigstore.cosign/rfc3161timestamp";
/// A layer of cosign's older attestations: a bare DSSE envelope.
pub const DSSE_ENVELOPE: &str = "application/vnd.dsse.envelope.v1+json";
/// A layer with a Notary Project signature as JWS (`signature-specification.md`).
pub const NOTATION_JWS: &str = "application/jose+json";
/// A layer with a Notary Project signature as COSE.
pub const NOTATION_COSE: &str = "application/cose";
/// DSSE payload type of an in-toto statement.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";
/// `predicateType` of a cosign v3 signature: a statement that says no more than "I signed this".
pub const SIGN_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";
/// Predicate type of an attested inventory.
pub const INVENTORY_PREDICATE: &str = "https://github.com/bpfseal/bpfseal/inventory/v1";
/// Predicate type of verifier evidence: which kernels accepted a bundle's programs.
pub const VERIFIER_PREDICATE: &str = "https://github.com/bpfseal/bpfseal/verifier/v1";
/// Predicate type of SLSA provenance, version 1.
pub const PROVENANCE_PREDICATE: &str = "https://slsa.dev/provenance/v1";
/// Predicate type of an SPDX document, as cosign names it.
pub const SPDX_PREDICATE: &str = "https://spdx.dev/Document";
/// Predicate type of a CycloneDX document, as cosign names it.
pub const CYCLONEDX_PREDICATE: &str = "https://cyclonedx.org/bom";

/// Says what is in a Sigstore bundle: `dsse-envelope` or `message-signature`.
pub const BUNDLE_CONTENT_ANNOTATION: &str = "dev.sigstore.bundle.content";
/// The predicate type of the statement in a Sigstore bundle.
pub const PREDICATE_TYPE_ANNOTATION: &str = "dev.sigstore.bundle.predicateType";

/// A layer's file name.
pub const TITLE: &str = "org.opencontainers.image.title";
/// A bundle's version.
pub const VERSION: &str = "org.opencontainers.image.version";
/// Where a bundle's source is.
pub const SOURCE: &str = "org.opencontainers.image.source";
/// When it was made (RFC 3339).
pub const CREATED: &str = "org.opencontainers.image.created";
/// In a layout's `index.json`: the name or tag of a manifest.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
